import { KeysteadError } from "../../../../core/errors.ts";
import { inspectAppCompose } from "../../../../core/evidence/app-compose.ts";
import { computeComposeHash } from "../../../../core/evidence/dstack.ts";
import { isGuestInfo } from "../../../../core/evidence/guest-info.ts";
import { refusePage } from "../../../../core/evidence/page.ts";
import type { Finding, Measurement } from "../../../../core/measurement.ts";
import { textFindings } from "../../../../core/text.ts";
import type { InputFile, Io } from "../../../io.ts";
import { jsonObject, measured, OS_IMAGE_OPTIONS, readOsImage, TEXT_LIMIT } from "../deployment.ts";
import { fileFindings } from "../evidence-file.ts";
import type { InputReader, ReaderArguments } from "../reader.ts";

async function read(io: Io, { inputs, options }: ReaderArguments): Promise<Measurement> {
  const file = await io.readFile(inputs[0] ?? "-", { limit: TEXT_LIMIT, argument: "app-compose" });
  const value = jsonObject(file);
  if (value !== undefined && isGuestInfo(value)) {
    throw new KeysteadError(
      "measure/wrong-input",
      `${file.name} is an answer of the guest agent, with the app-compose inside`,
      {
        argument: "app-compose",
        remedy: "Use keystead measure info.",
      },
    );
  }
  const osImage = await readOsImage(io, options);
  return measureAppCompose(file, "dstack", osImage);
}

/**
 * The dstack measurement of an app-compose.json's exact bytes.
 *
 * @param input the reader that it is for
 * @example
 * measureAppCompose(file, "dstack", undefined).registers.compose_hash;
 */
export function measureAppCompose(
  file: InputFile,
  input: string,
  osImage: Awaited<ReturnType<typeof readOsImage>>,
): Measurement {
  refusePage(file.bytes, "app-compose");
  const summary = inspectAppCompose(file.bytes);
  const composeHash = computeComposeHash(file.bytes);
  return {
    kind: "dstack",
    input,
    registers: {
      ...(osImage === undefined ? {} : { os_image_hash: osImage.register }),
      compose_hash: measured(composeHash, "computed", file.source, "SHA-256 of the file's exact bytes"),
    },
    facts: {
      format: "dstack app-compose.json",
      name: summary.name ?? "not said",
      key_provider: summary.keyProvider ?? "none",
      allowed_envs: summary.allowedEnvs.join(", ") || "none",
      "app id, unless one is set": composeHash.slice(0, 42),
    },
    sources: [file.source, ...(osImage === undefined ? [] : [osImage.register.source])],
    findings: [
      ...fileFindings(file),
      ...appComposeFindings(file),
      ...summary.remarks.map((message): Finding => ({ code: "dstack/app-compose", severity: "warning", message })),
    ],
    unchecked: [
      ...(osImage?.unchecked ?? [
        "Which OS image the machine boots: add --os-image. Without it the image admits this app on every OS image that the platform policy allows.",
      ]),
      "That the machine is deployed with these very bytes: tools that parse and write the file again change its hash.",
      "What the container images inside it contain.",
    ],
  };
}

/** What to tell about the file. A final newline: dstack's own tools write none. */
function appComposeFindings(file: InputFile): readonly Finding[] {
  const warn = (code: string, message: string): Finding => ({ code, severity: "warning", message });
  const text = textFindings(file.bytes, file.name).filter(({ code }) => code !== "text/no-final-newline");
  const newline = file.bytes.at(-1) === 0x0a;
  return [
    ...text,
    ...(newline
      ? [
          warn(
            "dstack/final-newline",
            `${file.name} ends with a newline, which dstack's tools do not write: if an editor added it, this is not the hash of what is deployed`,
          ),
        ]
      : []),
  ];
}

/** dstack app-compose files. */
export const readers: readonly InputReader[] = [
  {
    name: "dstack",
    summary: "a dstack app-compose.json, by its exact bytes",
    inputs: ["app-compose"],
    options: OS_IMAGE_OPTIONS,
    read,
    detect: (file) => {
      const value = jsonObject(file);
      return value?.manifest_version !== undefined && value.runner !== undefined;
    },
  },
];
