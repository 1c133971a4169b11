import { expect } from "chai";
import { findUnpinned } from "../../src/rollout/pinning.ts";

const DIGEST = `@sha256:${"ab".repeat(32)}`;
const codes = (text: string | Uint8Array) =>
  findUnpinned(typeof text === "string" ? new TextEncoder().encode(text) : text).map(({ code }) => code);
const service = (image: string) => `services:\n  web:\n    image: ${image}\n`;

describe("rollout: images pinned by digest", () => {
  it("passes what names its images by digest, with registry, port, path and tag", () => {
    for (const image of [
      `nginx${DIGEST}`,
      `docker.io/library/nginx:1.27${DIGEST}`,
      `"ghcr.io/a/b/c:v1.2.3${DIGEST}"`,
      `localhost:5000/x${DIGEST}`,
    ]) {
      expect(codes(service(image)), image).to.deep.equal([]);
    }
  });

  for (const [image, code] of [
    ["nginx", "mutable-tag"],
    ["nginx:latest", "mutable-tag"],
    ["nginx:1.27.3", "mutable-tag"],
    [`nginx@sha256:${"ab".repeat(31)}`, "mutable-tag"],
    [`nginx@sha256:${"AB".repeat(32)}`, "mutable-tag"],
    [`nginx@sha512:${"ab".repeat(64)}`, "mutable-tag"],
    [`" nginx${DIGEST}"`, "mutable-tag"],
    [`nginx${DIGEST}\${X}`, "interpolated"],
    ["$IMAGE", "interpolated"],
    [`nginx:$${"{"}TAG:-1.27}`, "interpolated"],
    ["5", "not-text"],
    ["[a]", "not-text"],
    ["", "not-text"],
  ] as const) {
    it(`refuses image: ${image || "(nothing)"} as ${code}`, () => expect(codes(service(image))).to.deep.equal([code]));
  }

  it("names service and line", () => {
    const text = `services:\n  ok:\n    image: a${DIGEST}\n  web:\n    image: nginx:latest\n`;
    const [fault] = findUnpinned(new TextEncoder().encode(text));
    expect([fault?.line, fault?.says]).to.satisfy(
      ([line, says]: [number, string]) => line === 5 && says.startsWith("web's image nginx:latest"),
    );
  });

  it("refuses whatever makes a file mean more than it says", () => {
    const good = `image: a${DIGEST}`;
    expect(codes(`x: &x { ${good} }\nservices:\n  web: *x\n`)).to.deep.equal(["alias"]);
    expect(codes(`x: &x { ${good} }\nservices:\n  web:\n    <<: *x\n    ${good}\n`)).to.include.members([
      "alias",
      "merge-key",
    ]);
    expect(codes(`x: &t nginx:latest\nservices:\n  web:\n    image: *t\n`)).to.deep.equal(["alias"]);
    expect(codes(`services:\n  web:\n    extends: { file: o.yaml, service: x }\n    ${good}\n`)).to.deep.equal([
      "extends",
    ]);
    expect(codes(`services:\n  web:\n    build: .\n    ${good}\n`)).to.deep.equal(["build"]);
    expect(codes(`include: [other.yaml]\nservices:\n  web:\n    ${good}\n`)).to.deep.equal(["include"]);
    expect(codes("services:\n  web:\n    command: x\n")).to.deep.equal(["no-image"]);
    expect(codes("services:\n  web:\n")).to.deep.equal(["no-image"]);
  });

  it("refuses what is no compose file, has a key twice, or several documents", () => {
    expect(codes("services: {}\n")).to.deep.equal(["not-compose"]);
    expect(codes("services: []\n")).to.deep.equal(["not-compose"]);
    expect(codes("")).to.deep.equal(["not-compose"]);
    expect(codes("a: [\n")).to.deep.equal(["not-yaml"]);
    expect(codes(`${service(`a${DIGEST}`)}---\n${service("nginx")}`)).to.deep.equal(["not-compose"]);
    expect(codes(`services:\n  web:\n    image: a${DIGEST}\n    image: nginx\n`)).to.deep.equal(["not-yaml"]);
    expect(codes(`services:\n  web:\n    image: a${DIGEST}\nservices:\n  web:\n    image: nginx\n`)).to.deep.equal([
      "not-yaml",
    ]);
    expect(codes(Uint8Array.of(0xff, 0xfe))).to.deep.equal(["not-yaml"]);
  });
});
