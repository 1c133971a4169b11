import { buildTdxQuote, fill } from "../../helpers/evidence.ts";
import { contradiction, type HostileFolder } from "./kinds.ts";
import { governance, guardian, measuredFolder, measurementOf, register, SERVICE, safeRef } from "./stage.ts";

const A0 = { mrtd: register(0xa0), rtmr1: register(0xb1), rtmr2: register(0xb2) };
const textOf = (kind: string, registers: Readonly<Record<string, string>>): string =>
  Object.entries(registers)
    .map(([name, value], i) => `${i === 0 ? `${kind}:` : ""}${name}=${value.slice(2)}`)
    .join(",");
const platform = (image: string) => ({ image, description: "firmware" });
const DEBUG = Uint8Array.of(1, 0, 0, 0x10, 0, 0, 0, 0);
const json = (value: unknown): Uint8Array => new TextEncoder().encode(JSON.stringify(value));
const COMPOSE = json({ manifest_version: 2, runner: "docker-compose", docker_compose_file: "services: {}" });
const SUMS = new TextEncoder().encode(`${"ab".repeat(32)}  bzImage\n`);

/** A genuine source, and a measurement beside it that says something else. */
const forged = (
  name: string,
  says: readonly string[],
  intent: string,
  given: Readonly<Record<string, string>>,
  kind: string,
  registers: Readonly<Record<string, string>>,
  source: Uint8Array,
  more: object = {},
): HostileFolder =>
  contradiction(name, says, () => {
    const own = intent === "add-image" ? { parties: { ...ownParties() } } : {};
    return measuredFolder(intent, given, measurementOf(kind, registers, source, more), source, own);
  });

const ownParties = () => ({ governance, guardian, delay: 172_800n, account: { safe: safeRef(20, 1n, "1.3.0") } });
const EVIL = { mrtd: register(0xee), rtmr1: register(0xb1), rtmr2: register(0xb2) };

export const MEASUREMENTS: readonly HostileFolder[] = [
  forged(
    "a forged measurement beside a genuine quote",
    ["provenance/forged"],
    "allow-platform",
    platform(textOf("tdx", EVIL)),
    "tdx",
    EVIL,
    buildTdxQuote(),
  ),
  forged(
    "a forged measurement beside a genuine quote of version 5",
    ["provenance/forged"],
    "allow-platform",
    platform(textOf("tdx", EVIL)),
    "tdx",
    EVIL,
    buildTdxQuote({ version: 5 }),
  ),
  forged(
    "one register forged of three",
    ["provenance/forged"],
    "allow-platform",
    platform(textOf("tdx", { ...A0, rtmr2: register(0xef) })),
    "tdx",
    { ...A0, rtmr2: register(0xef) },
    buildTdxQuote(),
  ),
  forged(
    "a quote in hex that says something else",
    ["provenance/forged"],
    "allow-platform",
    platform(textOf("tdx", EVIL)),
    "tdx",
    EVIL,
    new TextEncoder().encode(Buffer.from(buildTdxQuote()).toString("hex")),
  ),
  forged(
    "the quote of a machine under debug, whose measurement does not say so",
    ["provenance/unsafe"],
    "allow-platform",
    platform(textOf("tdx", A0)),
    "tdx",
    A0,
    buildTdxQuote({ tdAttributes: DEBUG }),
  ),
  forged(
    "a quote of another kind",
    ["provenance/other-kind"],
    "allow-platform",
    platform(`snp:measurement=${"aa".repeat(48)}`),
    "snp",
    { measurement: register(0xaa) },
    buildTdxQuote(),
  ),
  forged(
    "an OS image whose checksums give another hash",
    ["provenance/forged"],
    "allow-platform",
    platform(`dstack:os_image_hash=${"cd".repeat(32)}`),
    "dstack",
    { os_image_hash: register(0xcd, 32) },
    SUMS,
  ),
  forged(
    "an OS image whose digest file says another",
    ["provenance/forged"],
    "allow-platform",
    platform(`dstack:os_image_hash=${"cd".repeat(32)}`),
    "dstack",
    { os_image_hash: register(0xcd, 32) },
    new TextEncoder().encode(`${"ef".repeat(32)}\n`),
  ),
  forged(
    "a compose hash that is not the kept file's",
    ["provenance/forged"],
    "add-image",
    { service: SERVICE, image: `dstack:compose_hash=${"cd".repeat(32)}`, description: "app" },
    "dstack",
    { compose_hash: register(0xcd, 32) },
    COMPOSE,
  ),
  forged(
    "a measurement that calls its machine unsafe",
    ["provenance/unsafe"],
    "allow-platform",
    platform(textOf("tdx", A0)),
    "tdx",
    A0,
    buildTdxQuote(),
    {
      findings: [{ severity: "unsafe", code: "evidence/debug", message: "debug" }],
    },
  ),
  contradiction("a measurement of another image", ["provenance/other-image"], () =>
    measuredFolder(
      "allow-platform",
      platform(textOf("tdx", EVIL)),
      measurementOf("tdx", A0, buildTdxQuote()),
      buildTdxQuote(),
    ),
  ),
  contradiction("a source that was not measured", ["provenance/other-source"], () =>
    measuredFolder(
      "allow-platform",
      platform(textOf("tdx", A0)),
      measurementOf("tdx", A0, fill(9, 1)),
      buildTdxQuote(),
    ),
  ),
];
