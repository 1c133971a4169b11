import { signStep } from "../../../src/governance/sign.ts";
import { formatSignature, signaturePath } from "../../../src/governance/signatures.ts";
import { planStep } from "../../../src/governance/transactions.ts";
import { buildTdxQuote } from "../../helpers/evidence.ts";
import { nitroImage, PLATFORM, snpImage, tdxImage } from "../../helpers/images.ts";
import {
  ALLOW_TDX,
  addressOf,
  callOf,
  encoder,
  forge,
  governance,
  guardian,
  keyOf,
  type Made,
  made,
  measuredFolder,
  measurementOf,
  OWN,
  propose,
  proposeIntent,
  register,
  SERVICE,
  service,
  sha256,
  withFiles,
  word,
} from "./stage.ts";

/** A folder that nothing is wrong with: every command goes. */
export interface GoodFolder {
  readonly name: string;
  readonly make: () => Made;
}

const good = (name: string, make: () => Made): GoodFolder => ({ name, make });
const intent = (name: string, given: Readonly<Record<string, string>> = {}): GoodFolder =>
  good(`${name} ${Object.values(given)[0]?.slice(0, 30) ?? ""}`, () => made(proposeIntent(name, given)));
const own = (name: string, given: Readonly<Record<string, string>> = {}): GoodFolder =>
  good(`${name} of a service`, () => made(service(name, given)));
const description = "firmware 1.5";

const GRANTS: readonly GoodFolder[] = [
  ...Object.values(PLATFORM).map((image) => intent("allow-platform", { image, description })),
  ...[tdxImage("kms"), snpImage("kms"), nitroImage("kms")].map((image) =>
    intent("allow-kms-image", { image, description: "KMS 2" }),
  ),
  ...["tdx", "snp", "nitro", "dstack"].map((kind) => intent("enable-tee", { kind })),
  ...["tdx", "snp"].map((kind) => intent("accept-tcb", { kind, statuses: "UpToDate,SWHardeningNeeded" })),
  ...["tdx", "nitro"].map((kind) => intent("allow-device", { kind, device: word(0x2d) })),
  ...["tdx", "snp"].map((kind) => intent("unrestrict-devices", { kind })),
  intent("publish-kms-identity", {
    ...{
      "root-epoch": "1",
      "environment-key": word(0x11),
      "receipt-signer": addressOf(4),
      "evidence-hash": word(0x22),
    },
  }),
  intent("resume-release"),
];

const REVOCATIONS: readonly GoodFolder[] = [
  intent("revoke-platform", { platform: word(0x11), reason: "a leak" }),
  intent("revoke-kms-image", { image: word(0x11), reason: "a leak" }),
  intent("revoke-kms-identity", { identity: word(0x11), reason: "a leak" }),
  ...["tdx", "snp"].map((kind) => intent("suspend-tee", { kind, reason: "CVE" })),
  intent("reject-tcb", { kind: "tdx", statuses: "OutOfDate" }),
  intent("revoke-device", { kind: "tdx", device: word(0x2d) }),
  intent("restrict-devices", { kind: "snp" }),
  ...["1h", "14d"].map((duration) => intent("pause-release", { duration, reason: "a leak" })),
  intent("veto", { operation: word(0x33) }),
];

const ADMIN: readonly GoodFolder[] = [
  intent("set-gateway-app-id", { gateway: "gateway-2", previous: "gateway-1" }),
  intent("set-app-implementation", { implementation: addressOf(8), previous: addressOf(7) }),
  intent("extend-pause", { duration: "2d" }),
  intent("set-delay", { delay: "72h", previous: "48h" }),
  intent("set-delay", { delay: "30d" }),
  good("CANCELLER_ROLE for the recorded guardian", () => {
    const given = proposeIntent("grant-role", {
      ...{ contract: "timelock", role: "CANCELLER_ROLE", account: guardian.address },
    });
    return made(forge(given, { rollback: null }));
  }),
  good("PROPOSER_ROLE for the recorded governance Safe", () => {
    const given = proposeIntent("grant-role", {
      ...{ contract: "timelock", role: "PROPOSER_ROLE", account: governance.address },
    });
    return made(forge(given, { rollback: null }));
  }),
  good("a role taken from a stranger", () => {
    const taken = proposeIntent("revoke-role", {
      ...{ contract: "timelock", role: "PROPOSER_ROLE", account: addressOf(90) },
    });
    return made(forge(taken, { rollback: null }));
  }),
  good("Safe's own fallback handler", () => {
    const handler = "0x3EfCBb83A4A7AfcB4F68D501E2c2203a38be77f4";
    const call = callOf("safe", governance.address, "setFallbackHandler", handler);
    return made(forge(proposeIntent("call", { to: governance.address, data: call.data }), {}));
  }),
  good("a guard taken off", () => {
    const call = callOf("safe", governance.address, "setGuard", `0x${"00".repeat(20)}`);
    return made(proposeIntent("call", { to: governance.address, data: call.data }));
  }),
];

const UPGRADES: readonly GoodFolder[] = ["policy", "registry"].flatMap((contract) => [
  intent("upgrade", { contract, implementation: addressOf(30), previous: addressOf(5) }),
  intent("upgrade", { contract, implementation: addressOf(30) }),
]);

const SERVICES: readonly GoodFolder[] = [
  ...[tdxImage("app"), snpImage("app"), nitroImage("app")].map((image) =>
    own("add-image", { image, description: "v2" }),
  ),
  own("remove-image", { image: word(0x11), reason: "a leak" }),
  own("retire-image", { image: word(0x11), "last-moment": "1800000000" }),
  own("rotate-key"),
  own("publish-secrets", { name: "env", ciphertext: "0x1234" }),
  own("extend-notice", { period: "7d" }),
  own("set-service-guardian", { guardian: addressOf(12) }),
  own("set-device", { device: word(0x2d), allowed: "true" }),
  own("set-tcb-rule", { required: "true" }),
  own("transfer-admin", { to: addressOf(13) }),
  own("accept-admin"),
];

const A0 = { mrtd: register(0xa0), rtmr1: register(0xb1), rtmr2: register(0xb2) };
const QUOTE = buildTdxQuote();
const COMPOSE = encoder.encode('{"manifest_version":2,"runner":"docker-compose","docker_compose_file":"services: {}"}');
const SUMS = encoder.encode(`${"ab".repeat(32)}  bzImage\n`);
const tdxText = `tdx:mrtd=${A0.mrtd.slice(2)},rtmr1=${A0.rtmr1.slice(2)},rtmr2=${A0.rtmr2.slice(2)}`;
const ownText = `dstack:compose_hash=${sha256(COMPOSE).slice(2)}`;
const composed = measurementOf("dstack", { compose_hash: sha256(COMPOSE) }, COMPOSE);

const MEASURED: readonly GoodFolder[] = [
  good("a platform claimed by the quote that is kept", () =>
    measuredFolder("allow-platform", { image: tdxText, description }, measurementOf("tdx", A0, QUOTE), QUOTE),
  ),
  good("a platform measured again from checksums", () =>
    measuredFolder(
      "allow-platform",
      { image: `dstack:os_image_hash=${sha256(SUMS).slice(2)}`, description },
      measurementOf("dstack", { os_image_hash: sha256(SUMS) }, SUMS),
      SUMS,
    ),
  ),
  good("an image measured again from its compose file", () =>
    measuredFolder("add-image", { service: SERVICE, image: ownText, description: "app" }, composed, COMPOSE, {
      parties: OWN,
    }),
  ),
  good("create-service with a measured image", () => {
    const given = { admin: addressOf(20), notice: "7d", description: "app", image: ownText };
    return measuredFolder("create-service", { ...given, "image-description": "v1" }, composed, COMPOSE, {
      parties: OWN,
    });
  }),
  good("create-sealed with a measured image", () => {
    const pinned = { os_image_hash: sha256(SUMS), compose_hash: sha256(COMPOSE) };
    const image = `dstack:os_image_hash=${pinned.os_image_hash.slice(2)},compose_hash=${pinned.compose_hash.slice(2)}`;
    return measuredFolder(
      "create-sealed",
      { image, description: "app" },
      measurementOf("dstack", pinned, COMPOSE),
      COMPOSE,
      { parties: OWN },
    );
  }),
];

const SIGNED: readonly GoodFolder[] = [
  good("a grant with two signatures", () => {
    const grant = made(propose());
    const records = ["alice", "bob"].map((name) =>
      signStep(grant.operation, planStep(grant.operation, "schedule"), keyOf(name)),
    );
    return withFiles(grant, ...records.map((one) => [signaturePath(one), formatSignature(one)] as const));
  }),
  good("a cancellation signed for a later nonce", () => {
    const grant = made(propose());
    const step = planStep(grant.operation, "cancel", { safe: guardian.address, nonce: 12n });
    const record = signStep(grant.operation, step, keyOf("dave"));
    return withFiles(grant, [signaturePath(record), formatSignature(record)]);
  }),
  good("two grants at once, with their rollback", () =>
    made(propose({ intents: [ALLOW_TDX, { intent: "enable-tee", arguments: { kind: "tdx" } }] })),
  ),
  good("a grant that follows another", () => made(propose({ predecessor: word(0x77) }))),
  good("a grant with its start recorded", () =>
    made(
      propose({
        start: { block: 17n, hash: word(0x12), facts: [{ name: "timelock.getMinDelay()", value: "172800" }] },
      }),
    ),
  ),
  good("a revocation whose rollback allows the same platform again", () => {
    const [allow] = propose().calls;
    const [undo] = propose().rollback?.calls ?? [];
    const stop = proposeIntent("suspend-tee", { kind: "tdx", reason: "a bug" });
    if (allow === undefined || undo === undefined || stop.rollback === null) throw new Error("all are there");
    return made(forge(stop, { calls: [undo], rollback: { ...stop.rollback, calls: [allow] } }));
  }),
  good("titles and descriptions in other alphabets, and with emoji", () =>
    made(
      propose({
        title: "Разрешить платформу · 允许平台 · प्लेटफ़ॉर्म ✔",
        intents: [
          {
            intent: "allow-platform",
            arguments: { ...ALLOW_TDX.arguments, description: "größer, naïve, čtyři ✔️ 👩‍💻" },
          },
        ],
      }),
    ),
  ),
];

/** The control group. */
export const GOOD: readonly GoodFolder[] = [
  ...GRANTS,
  ...REVOCATIONS,
  ...ADMIN,
  ...UPGRADES,
  ...SERVICES,
  ...MEASURED,
  ...SIGNED,
];
