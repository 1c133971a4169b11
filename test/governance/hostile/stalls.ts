import { importSignature, signStep } from "../../../src/governance/sign.ts";
import { formatSignature, signaturePath } from "../../../src/governance/signatures.ts";
import { planStep } from "../../../src/governance/transactions.ts";
import { added, type HostileFolder, takeover } from "./kinds.ts";
import { ALLOW_TDX, addressOf, forge, keyOf, made, propose, withFiles, word } from "./stage.ts";

export const LOOKALIKES: readonly HostileFolder[] = [
  takeover("a title with a Hangul filler", "text/hidden", () => made(propose({ title: "GRANT\u3164 1 platform" })), {
    verify: 2,
  }),
  takeover("a title whose letters are Cyrillic", "text/lookalike", () => made(propose({ title: "R\u0435v\u043eke" })), {
    verify: 2,
  }),
  takeover("a title in mathematical letters", "text/lookalike", () => made(propose({ title: "\u{1d41e}nable" })), {
    verify: 2,
  }),
  takeover("a title struck through", "text/hidden", () => made(propose({ title: "G\u0336R\u0336ANT" })), { verify: 2 }),
  takeover(
    "a title that names another lane",
    "text/other-lane",
    () => made(propose({ title: "Revoke a broken platform" })),
    { verify: 2 },
  ),
  takeover(
    "a description with joiners",
    "text/hidden",
    () =>
      made(
        propose({
          intents: [{ intent: "allow-platform", arguments: { ...ALLOW_TDX.arguments, description: "v1\u200d.5" } }],
        }),
      ),
    { verify: 2 },
  ),
  takeover(
    "a description that reads backwards",
    "text/hidden",
    () =>
      made(
        propose({
          intents: [{ intent: "allow-platform", arguments: { ...ALLOW_TDX.arguments, description: "\u202eoof" } }],
        }),
      ),
    { verify: 2 },
  ),
];

export const STALLS: readonly HostileFolder[] = [
  takeover("a delay of zero for the operation", "terms/no-delay", () => {
    const grant = propose();
    if (grant.timelock === null) throw new Error("it waits");
    return made(forge(grant, { timelock: { ...grant.timelock, delay: 0n } }));
  }),
  takeover("a delay that the record does not allow", "terms/delay-short", () => {
    const grant = propose();
    if (grant.timelock === null) throw new Error("it waits");
    return made(forge(grant, { timelock: { ...grant.timelock, delay: 60n } }));
  }),
  takeover("a delay of 2^200 seconds", "terms/delay-absurd", () => {
    const grant = propose();
    if (grant.timelock === null) throw new Error("it waits");
    return made(forge(grant, { timelock: { ...grant.timelock, delay: 2n ** 200n } }));
  }),
  takeover("proposed in 1970", "terms/time-absurd", () => made(propose({ time: 12n }))),
  takeover("proposed in the year 30000", "terms/time-absurd", () => made(propose({ time: 884_541_351_600n }))),
  takeover("a block that contradicts its start", "terms/block-contradicts", () => {
    const grant = propose();
    const start = { block: 17n, hash: word(0x12), facts: [] };
    return made(forge(grant, { assumptions: { ...grant.assumptions, block: 3n, start } }));
  }),
  takeover("a start at a block without a hash", "terms/block-absurd", () => {
    const grant = propose();
    const start = { block: 17n, hash: word(0), facts: [] };
    return made(forge(grant, { assumptions: { ...grant.assumptions, block: 17n, start } }));
  }),
  added("a file more", ["verify/unexpected-file"], () => withFiles(made(propose()), ["README.txt", "sign quickly"])),
  added("a signature that is not JSON", ["json/malformed"], () =>
    withFiles(made(propose()), [`signatures/${word(1)}/${addressOf(50)}.json`, "{"]),
  ),
  added("a signature of another's", ["signature/other-signer"], () => {
    const { operation, files } = made(propose());
    const record = { ...signStep(operation, planStep(operation, "schedule"), keyOf("mallory")), signer: addressOf(50) };
    return withFiles({ operation, files }, [signaturePath(record), formatSignature(record)]);
  }),
  added("a signature of another transaction", ["signature/other-transaction"], () => {
    const { operation, files } = made(propose());
    const other = propose({ id: "008-other" });
    const record = signStep(other, planStep(other, "schedule"), keyOf("mallory"));
    return withFiles({ operation, files }, [signaturePath(record), formatSignature(record)]);
  }),
  added("a signature in another's place", ["signature/other-place"], () => {
    const { operation, files } = made(propose());
    const record = signStep(operation, planStep(operation, "schedule"), keyOf("mallory"));
    const place = signaturePath({ ...record, signer: addressOf(50) });
    return withFiles({ operation, files }, [place, formatSignature(record)]);
  }),
  added("a contract's signature for an owner's owner", ["signature/malformed"], () => {
    const { operation, files } = made(propose());
    const plan = planStep(operation, "schedule");
    const signature = { signature: "0x1234", signer: addressOf(51), contract: true } as const;
    const record = { ...importSignature(operation, plan, signature), through: addressOf(50) };
    return withFiles({ operation, files }, [signaturePath(record), formatSignature(record)]);
  }),
  added("a signature for a nonce that no Safe reaches", ["signature/malformed"], () => {
    const { operation, files } = made(propose());
    const record = signStep(operation, planStep(operation, "schedule"), keyOf("mallory"));
    const text = formatSignature({ ...record, nonce: 2n ** 256n - 1n });
    return withFiles({ operation, files }, [signaturePath(record), text]);
  }),
];
