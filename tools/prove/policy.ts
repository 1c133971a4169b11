import {
  ASSUMED,
  answer,
  type Claim,
  expectAnswer,
  field,
  mapping,
  padLeft,
  Refuted,
  readArtifact,
  request,
} from "./claim.ts";
import { type Code, execute, load, TIMESTAMP, type Writes } from "./evm.ts";
import type { Solver } from "./solver.ts";
import * as t from "./term.ts";
import type { Term } from "./term.ts";

export const POLICY = "contracts/policy/PlatformPolicy.sol:PlatformPolicy";
/** erc7201:keystead.storage.PlatformPolicy */
const ROOT = 0xf5ef5f018a8b15ae385f05397962a1af09f148accd2b149f94a45402d413a200n;
const GATE = t.word(ROOT);
const PLATFORMS = ROOT + 3n;
const DEVICES = ROOT + 6n;
const ALLOWED = 1;

const STORAGE = "policy";

/** The storage words that `decide` rests on. */
export interface PolicyWords {
  readonly gate: Term;
  /** `IPlatformPolicy.Entry` of the platform. */
  readonly platform: Term;
  /** Whether the policy lists the device for the kind. */
  readonly policyDevice: Term;
}

/** The specification of `decide`, in the order of its checks. */
export function decideSpecification(words: PolicyWords, kind: Term, tcbStatus: Term, now: Term): Term {
  const { gate, platform, policyDevice } = words;
  const one = t.word(1, 1);
  const isIn = (set: Term, index: Term) => t.eq(field(t.binary("lshr", padLeft(set), padLeft(index)), 0, 1), one);
  const ofKind = t.binary("lshr", padLeft(field(gate, 56, 128)), t.binary("shl", padLeft(kind), t.word(4)));
  const checks: [Term, Term][] = [
    [t.not(t.ult(now, padLeft(field(gate, 0, 40)))), answer("ReleasePaused")],
    [isIn(field(gate, 40, 8), kind), answer("TeeSuspended")],
    [isIn(field(ofKind, 0, 16), tcbStatus), answer("TcbNotAccepted")],
    [t.eq(field(platform, 0, 8), t.word(ALLOWED, 8)), answer("PlatformNotAllowed")],
    [t.eq(field(platform, 8, 8), kind), answer("PlatformKindMismatch")],
    [
      t.or(t.not(isIn(field(gate, 48, 8), kind)), t.not(t.eq(field(policyDevice, 0, 8), t.word(0, 8)))),
      answer("DeviceNotAllowed"),
    ],
  ];
  return checks.reduceRight((rest, [holds, otherwise]) => t.ite(holds, rest, otherwise), answer("Allowed"));
}

/** The same for a machine, on what storage holds after `writes`. */
function decideAt(machine: Readonly<Record<string, Term>>, writes: Writes = [], now = TIMESTAMP): Term {
  const { kind, platformId, deviceId, tcbStatus } = machine;
  if (!kind || !platformId || !deviceId || !tcbStatus) throw new Error("decide takes four arguments");
  const at = (slot: Term) => load(STORAGE, writes, slot);
  const words = {
    gate: at(GATE),
    platform: at(mapping(platformId, t.word(PLATFORMS))),
    policyDevice: at(mapping(deviceId, mapping(padLeft(kind), t.word(DEVICES)))),
  };
  return decideSpecification(words, kind, tcbStatus, now);
}

/** An enum in storage has a value that the enum has: shown for every write by the claim on writes of a state. */
const isState = (entry: Term) => t.ult(field(entry, 0, 8), t.word(3, 8));

async function proveDecide(code: Code, solver: Solver): Promise<void> {
  const { calldata, values } = request(readArtifact(POLICY), "decide");
  const entry = t.sload(STORAGE, mapping(values.platformId as Term, t.word(PLATFORMS)));
  const outcomes = await execute(
    code,
    { calldata, assumptions: [...ASSUMED, isState(entry)], storage: STORAGE },
    solver,
  );
  await expectAnswer(outcomes, () => decideAt(values), solver, Object.values(values));
}

/** What a guardian may call: the authorization matrix of the tests holds the same list against the ABI. */
const GUARDIAN_CALLS = [
  "revokePlatform",
  "suspendTee",
  "rejectTcb",
  "revokeDevice",
  "restrictDevices",
  "revokeKmsImage",
  "revokeKmsIdentity",
  "pauseRelease",
] as const;
/** Lengths of a reason: none, one that fills no word, one that fills one, one that begins another. */
const REASONS = [0, 5, 32, 33];

/** Whoever calls, with whatever role: a call of these turns no denial into an allowance, now or at any later time. */
async function proveTightening(code: Code, solver: Solver): Promise<void> {
  const artifact = readArtifact(POLICY);
  const machine = {
    kind: t.variable("machine:kind", 8),
    platformId: t.variable("machine:platformId"),
    deviceId: t.variable("machine:deviceId"),
    tcbStatus: t.variable("machine:tcbStatus", 8),
  };
  const later = t.variable("later");
  const allowed = answer("Allowed");
  for (const name of GUARDIAN_CALLS) {
    const texts = artifact.interface.getFunction(name)?.inputs.filter(({ type }) => type === "string") ?? [];
    let done = 0;
    for (const length of texts.length === 0 ? [0] : REASONS) {
      const { calldata } = request(artifact, name, Object.fromEntries(texts.map((text) => [text.name, length])));
      const outcomes = await execute(code, { calldata, assumptions: ASSUMED, storage: STORAGE }, solver);
      for (const { kind, path, writes } of outcomes) {
        if (kind === "revert") continue;
        done += 1;
        const loosened = [
          ...[...path, t.not(t.ult(later, TIMESTAMP))],
          t.not(t.eq(decideAt(machine, [], later), allowed)),
          t.eq(decideAt(machine, writes, later), allowed),
        ];
        if (!(await solver.isSatisfiable(loosened))) continue;
        throw new Refuted(`${name} loosens:\n${await solver.model(loosened, Object.values(machine))}`);
      }
    }
    if (done === 0) throw new Refuted(`${name} can never succeed: nothing is shown`);
  }
}

export const POLICY_CLAIMS: readonly Claim[] = [
  { title: "decide never reverts and is its specification", contract: POLICY, prove: proveDecide },
  { title: "no guardian call turns a denial into an allowance", contract: POLICY, prove: proveTightening },
];
