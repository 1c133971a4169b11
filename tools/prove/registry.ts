import {
  ASSUMED,
  answer,
  type Claim,
  expectAnswer,
  field,
  mapping,
  padLeft,
  padRight,
  Refuted,
  type Request,
  readArtifact,
  request,
} from "./claim.ts";
import { CALLER, type Code, execute, join, load, NUMBER, type Outcome, TIMESTAMP, type Writes } from "./evm.ts";
import type { Solver } from "./solver.ts";
import * as t from "./term.ts";
import type { Term } from "./term.ts";

const REGISTRY = "contracts/registry/KmsRegistry.sol:KmsRegistry";
const POLICY = "contracts/policy/PlatformPolicy.sol:PlatformPolicy";
const STORAGE = "registry";
/** erc7201:keystead.storage.KmsRegistry; its first slot is the mapping of services. */
const SERVICES = t.word(0xcbba06258cefd29a5414518227a5f12767df9b0b4ff96b05066b75c1bb332e00n);

// Slots of a service, from its first on (ServiceStore.Service).
const OTHERS = 2;
const IMAGES = 6;
const DEVICES = 7;
// ServiceWord (Words.sol): bits of the flags, and where fields begin.
const NOTICE = { low: 160, bits: 24 };
const FLAGS_LOW = 184;
const EXISTS = 0;
const UPGRADEABLE = 1;
const REQUIRE_UP_TO_DATE_TCB = 3;
// ImageWord.
const LISTED = 1;
const REMOVED = 2;

const slotOf = (serviceId: Term, offset = 0): Term => t.add(mapping(padRight(serviceId), SERVICES), t.word(offset));
const flagBit = (word: Term, index: number): Term => field(word, FLAGS_LOW + index, 1);
const flag = (word: Term, index: number): Term => t.eq(flagBit(word, index), t.word(1, 1));
const number = (word: Term, low: number, bits: number): Term => padLeft(field(word, low, bits));

/** The storage words that `authorize` rests on. */
export interface RegistryWords {
  readonly service: Term;
  readonly rules: Term;
  readonly image: Term;
  readonly serviceDevice: Term;
}

/**
 * The specification of `authorize`, in the order of its checks.
 *
 * @param policy what the policy answers to this request
 */
export function authorizeSpecification(words: RegistryWords, tcbStatus: Term, now: Term, policy: Term): Term {
  const { service, rules, image, serviceDevice } = words;
  const [state, until] = [number(image, 80, 8), number(image, 40, 40)];
  const tcbRuleEnds = number(rules, 176, 40);
  const device = number(serviceDevice, 0, 40);
  const strict = t.all(flag(service, REQUIRE_UP_TO_DATE_TCB), t.or(t.eq(tcbRuleEnds, t.ZERO), t.ult(now, tcbRuleEnds)));
  const unlisted = t.ite(flag(service, EXISTS), answer("ImageUnknown"), answer("ServiceUnknown"));
  const checks: [Term, Term][] = [
    [t.eq(state, t.word(LISTED)), t.ite(t.eq(state, t.word(REMOVED)), answer("ImageRemoved"), unlisted)],
    [t.not(t.ult(now, number(image, 0, 40))), answer("ImagePending")],
    [t.or(t.eq(until, t.ZERO), t.ult(now, until)), answer("ImageRetired")],
    [t.or(t.eq(tcbStatus, t.word(0, 8)), t.not(strict)), answer("ServiceTcbNotUpToDate")],
    [
      t.or(t.eq(field(image, 128, 1), t.word(0, 1)), t.all(t.not(t.eq(device, t.ZERO)), t.not(t.ult(now, device)))),
      answer("ServiceDeviceNotAllowed"),
    ],
  ];
  return checks.reduceRight((rest, [holds, otherwise]) => t.ite(holds, rest, otherwise), policy);
}

/** The same for a request, on what storage holds after `writes`. */
function authorizeAt(asked: Readonly<Record<string, Term>>, policy: Term, writes: Writes = [], now = TIMESTAMP): Term {
  const { serviceId, imageId, deviceId, tcbStatus } = asked;
  if (!serviceId || !imageId || !deviceId || !tcbStatus) throw new Error("not a boot request");
  const at = (slot: Term) => load(STORAGE, writes, slot);
  const words = {
    service: at(slotOf(serviceId)),
    rules: at(slotOf(serviceId, OTHERS)),
    image: at(mapping(imageId, slotOf(serviceId, IMAGES))),
    serviceDevice: at(mapping(deviceId, slotOf(serviceId, DEVICES))),
  };
  return authorizeSpecification(words, tcbStatus, now, policy);
}

/** One question to the policy, of the proxy that the code names; what is no decision counts as no answer. */
function policyAnswer(outcome: Outcome, asked: Readonly<Record<string, Term>>): Term {
  const [call, ...more] = outcome.calls;
  if (call === undefined) return answer("PolicyUnavailable");
  const decide = readArtifact(POLICY).interface.getFunction("decide");
  const { serviceId, imageId, platformId, deviceId, tcbStatus } = asked as Record<string, Term>;
  if (!serviceId || !imageId || !platformId || !deviceId || !tcbStatus || decide === null)
    throw new Error("incomplete");
  const kind = field(load(STORAGE, [], mapping(imageId, slotOf(serviceId, IMAGES))), 88, 8);
  const question = [t.word(BigInt(decide.selector), 32), padLeft(kind), platformId, deviceId, padLeft(tcbStatus)];
  const isAsked = more.length === 0 && call.target.name.startsWith("immutable:");
  if (!isAsked || call.input.bits !== question.reduce((bits, part) => bits + part.bits, 0)) {
    throw new Refuted("another question than decide(kind, platformId, deviceId, tcbStatus) is asked");
  }
  const right = t.eq(call.input, join(question) as Term);
  const decision = call.answer[0] as Term;
  const usable = t.all(t.eq(call.ok, t.ONE), t.ult(t.word(31), call.size), t.ult(decision, t.word(16)));
  // Where the question is not the right one nothing is specified: no answer is equal to 2^256 - 1.
  return t.ite(right, t.ite(usable, decision, answer("PolicyUnavailable")), t.word(-1n));
}

async function proveAuthorize(code: Code, solver: Solver): Promise<void> {
  const { calldata, values } = request(readArtifact(REGISTRY), "authorize");
  const outcomes = await execute(code, { calldata, assumptions: ASSUMED, storage: STORAGE }, solver);
  const specification = (outcome: Outcome) => authorizeAt(values, policyAnswer(outcome, values));
  await expectAnswer(outcomes, specification, solver, Object.values(values));
}

/** Calls that change services, with the bytes of their texts. Creations and lists of images or devices: see docs/proofs.md. */
const CALLS: readonly (readonly [name: string, lengths: Readonly<Record<string, number>>])[] = [
  ["acceptServiceAdmin", {}],
  ["extendNoticePeriod", {}],
  ["publishSealedSecrets", { name: 3, ciphertext: 33 }],
  ["removeImageFromService", { reason: 5 }],
  ["renounceServiceAdmin", {}],
  ["retireImageFromService", {}],
  ["rotateServiceKey", {}],
  ["setDevice", {}],
  ["setRequireUpToDateTcb", {}],
  ["setServiceGuardian", {}],
  ["transferServiceAdmin", {}],
  ["withdrawPendingSecrets", { reason: 5 }],
];

interface Machine extends Readonly<Record<string, Term>> {
  readonly serviceId: Term;
  readonly imageId: Term;
  readonly deviceId: Term;
  readonly tcbStatus: Term;
}

/**
 * A machine of any service, image and device, case by case: each is the call's own, or another. One question for all
 * would say the same, and take the solver minutes.
 */
function machines({ values }: Request): { readonly machine: Machine; readonly assumed: readonly Term[] }[] {
  let cases: { machine: Record<string, Term>; assumed: Term[] }[] = [
    { machine: { tcbStatus: t.variable("machine:tcbStatus", 8) }, assumed: [] },
  ];
  for (const [name, bits] of Object.entries({ serviceId: 160, imageId: 256, deviceId: 256 })) {
    const [own, other] = [values[name], t.variable(`machine:${name}`, bits)];
    cases = cases.flatMap(({ machine, assumed }) => [
      ...(own === undefined ? [] : [{ machine: { ...machine, [name]: own }, assumed }]),
      {
        machine: { ...machine, [name]: other },
        assumed: own === undefined ? assumed : [...assumed, t.not(t.eq(own, other))],
      },
    ]);
  }
  return cases as { machine: Machine; assumed: Term[] }[];
}

type Harm = (outcome: Outcome, machine: Machine, called: Request & { readonly name: string }) => readonly Term[];

/** Runs every call, and asks `harm` of each way in which it succeeds: nothing may satisfy it. */
async function expectHarmless(code: Code, solver: Solver, harm: Harm): Promise<void> {
  const artifact = readArtifact(REGISTRY);
  for (const [name, lengths] of CALLS) {
    const called = request(artifact, name, lengths);
    const environment = { calldata: called.calldata, assumptions: ASSUMED, storage: STORAGE };
    const succeeded = (await execute(code, environment, solver)).filter(({ kind }) => kind === "return");
    if (succeeded.length === 0) throw new Refuted(`${name} never succeeds: nothing is shown`);
    for (const outcome of succeeded) {
      for (const { machine, assumed } of machines(called)) {
        const terms = [...outcome.path, ...assumed, ...harm(outcome, machine, { ...called, name })];
        if (!(await solver.isSatisfiable(terms))) continue;
        const shown = [...Object.values(machine), ...Object.values(called.values)];
        throw new Refuted(`${name} does it:\n${await solver.model(terms, shown)}`);
      }
    }
  }
}

const serviceWord = (writes: Writes, serviceId: Term) => load(STORAGE, writes, slotOf(serviceId));

async function proveNotice(code: Code, solver: Solver): Promise<void> {
  await expectHarmless(code, solver, ({ writes }, { serviceId }) => {
    const [before, after] = [serviceWord([], serviceId), serviceWord(writes, serviceId)];
    const notice = (word: Term) => number(word, NOTICE.low, NOTICE.bits);
    const changes = (index: number) => t.not(t.eq(flagBit(before, index), flagBit(after, index)));
    return [t.or(t.ult(notice(after), notice(before)), changes(UPGRADEABLE), changes(EXISTS))];
  });
}

/** Fields of a service's word that a call may change; all others stay, but for the event's number and block. */
const OWN_FIELDS: Readonly<Record<string, readonly [low: number, bits: number]>> = {
  acceptServiceAdmin: [0, 160],
  renounceServiceAdmin: [0, 160],
  extendNoticePeriod: [NOTICE.low, NOTICE.bits],
  setRequireUpToDateTcb: [FLAGS_LOW + REQUIRE_UP_TO_DATE_TCB, 1],
};
const SEQUENCE = { low: 192, bits: 32 };
const BLOCK = { low: 224, bits: 32 };

async function proveFields(code: Code, solver: Solver): Promise<void> {
  await expectHarmless(code, solver, ({ writes }, { serviceId }, { name, values }) => {
    const [before, after] = [serviceWord([], serviceId), serviceWord(writes, serviceId)];
    if (serviceId !== values.serviceId) return [t.not(t.eq(before, after))];
    const [low, bits] = OWN_FIELDS[name] ?? [0, 0];
    const without = (word: Term) =>
      t.and(field(word, 0, SEQUENCE.low), t.word(~(((1n << BigInt(bits)) - 1n) << BigInt(low)), 192));
    const numbered = t.eq(
      field(after, SEQUENCE.low, SEQUENCE.bits),
      t.add(field(before, SEQUENCE.low, SEQUENCE.bits), t.word(1, 32)),
    );
    const placed = t.eq(field(after, BLOCK.low, BLOCK.bits), field(NUMBER, 0, 32));
    return [t.not(t.all(t.eq(without(before), without(after)), numbered, placed))];
  });
}

/** Whoever is not the service's admin, its guardian too: what they do lets no machine in, then or later. */
async function proveOnlyAdmin(code: Code, solver: Solver): Promise<void> {
  const [later, policy] = [t.variable("later"), t.variable("policy's answer")];
  const allowed = answer("Allowed");
  await expectHarmless(code, solver, ({ writes }, machine) => {
    const before = serviceWord([], machine.serviceId);
    return [
      flag(before, EXISTS),
      t.not(t.eq(number(before, 0, 160), CALLER)),
      t.not(t.ult(later, TIMESTAMP)),
      t.not(t.eq(authorizeAt(machine, policy, [], later), allowed)),
      t.eq(authorizeAt(machine, policy, writes, later), allowed),
    ];
  });
}

export const REGISTRY_CLAIMS: readonly Claim[] = [
  { title: "authorize never reverts and is its specification", contract: REGISTRY, prove: proveAuthorize },
  {
    title: "no call shortens a notice period, or changes whether a service exists or is upgradeable",
    contract: REGISTRY,
    prove: proveNotice,
  },
  { title: "each call changes the fields of a service that are its own", contract: REGISTRY, prove: proveFields },
  { title: "no call but its admin's lets a machine into a service", contract: REGISTRY, prove: proveOnlyAdmin },
];
