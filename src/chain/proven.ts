import type { Hex } from "../core/bytes.ts";
import { KeysteadError } from "../core/errors.ts";
import type { Client } from "./client.ts";
import { asEndpointError, type Endpoint } from "./endpoint.ts";
import { fetchStorageProof } from "./proof.ts";
import type { Agreement } from "./quorum.ts";

/*
 * Storage at one agreed block, proved slot by slot and kept: what was proved against a block's state root stays true of that block. Any one of the
 * endpoints that agreed can supply a proof, for none can make a false one.
 */

/** Reads a slot that is proved already. */
export type ReadSlot = (address: Hex, slot: Hex) => bigint;

/** The slots of one account. */
export interface SlotRequest {
  readonly address: Hex;
  readonly slots: readonly Hex[];
}

/** Proven storage at one block. */
export interface ProvenState extends Agreement {
  /** Whether the block stays. One that may be replaced can't be proved afterwards, by the most honest endpoint. */
  readonly final: boolean;
  /**
   * Proves the slots that are not proved yet, in as few calls as can be.
   *
   * @throws KeysteadError `chain/unproven` (retryable) {errors}: none of the endpoints that agreed gives a proof that holds; `chain/unreachable` (retryable)
   * where none could be asked
   */
  readonly prove: (requests: readonly SlotRequest[]) => Promise<void>;
  /**
   * Evaluates over proven slots: runs `evaluate`, proves what it asked for and is not there yet, and runs it again until nothing is missing. On slots
   * that are there it does not wait.
   *
   * @throws KeysteadError as `prove`
   */
  readonly read: <T>(evaluate: (read: ReadSlot) => T) => Promise<T>;
  /** keccak-256 of an account's code, proved. */
  readonly codeHash: (address: Hex) => Promise<Hex>;
}

/** Slots in one call: answers stay below a few hundred kilobytes. */
const SLOTS_PER_CALL = 64;
/** An endpoint may be several nodes, one of them behind: each endpoint is asked this often. */
const ROUNDS = 2;
const ROUND_PAUSE_MS = 100;
/** What no honest endpoint answers about a block that is final. */
const FALSE: ReadonlySet<string> = new Set(["proof/invalid", "chain/history-unproven"]);
/** Slots kept an account: beyond that they are forgotten, and proved again when they are needed. */
const MAX_SLOTS = 100_000;
/** An evaluation asks for what depends on what it has read; none of ours is deeper. */
const MAX_DEPTH = 16;

/**
 * Makes the proven state of a block.
 *
 * @param final whether the block is finalized
 * @example
 * const state = createProvenState(await quorum.finalized());
 * const head = await state.read((read) => read(registry, serviceSlots(id).head));
 */
export function createProvenState({ block, agreed }: Agreement, final = true): ProvenState {
  const values = new Map<Hex, Map<Hex, bigint>>();
  const hashes = new Map<Hex, Hex>();
  const pending = new Map<string, Promise<void>>();

  const proveOnce = async (address: Hex, slots: readonly Hex[]): Promise<void> => {
    const { codeHash, values: proved } = await fromAny({ agreed, final }, (client) =>
      fetchStorageProof(client, block, address, slots),
    );
    hashes.set(address, codeHash);
    const there = values.get(address);
    const account = there !== undefined && there.size < MAX_SLOTS ? there : new Map<Hex, bigint>();
    values.set(address, account);
    slots.forEach((slot, at) => {
      account.set(slot, proved[at] ?? 0n);
    });
  };

  /** Starts proving what nobody is proving yet, and waits for all of it. */
  const prove: ProvenState["prove"] = async (requests) => {
    const waits: Promise<void>[] = [];
    for (const { address, slots } of requests) {
      const known = values.get(address);
      const missing = [...new Set(slots)].filter((slot) => known?.has(slot) !== true);
      const running = missing.map((slot) => pending.get(`${address}${slot}`));
      waits.push(...running.filter((each) => each !== undefined));
      const fresh = missing.filter((_, at) => running[at] === undefined);
      for (let at = 0; at < fresh.length; at += SLOTS_PER_CALL) {
        const chunk = fresh.slice(at, at + SLOTS_PER_CALL);
        const work = proveOnce(address, chunk).finally(() => {
          for (const slot of chunk) pending.delete(`${address}${slot}`);
        });
        for (const slot of chunk) pending.set(`${address}${slot}`, work);
        waits.push(work);
      }
    }
    await Promise.all(waits);
  };

  const attempt = <T>(evaluate: (read: ReadSlot) => T): { readonly value: T; readonly missing: SlotRequest[] } => {
    const missing: SlotRequest[] = [];
    const value = evaluate((address, slot) => {
      const known = values.get(address)?.get(slot);
      if (known === undefined) missing.push({ address, slots: [slot] });
      return known ?? 0n;
    });
    return { value, missing };
  };

  const read: ProvenState["read"] = async (evaluate) => {
    for (let depth = 0; depth < MAX_DEPTH; depth++) {
      const { value, missing } = attempt(evaluate);
      if (missing.length === 0) return value;
      const byAddress = Map.groupBy(missing, ({ address }) => address);
      await prove([...byAddress].map(([address, each]) => ({ address, slots: each.flatMap(({ slots }) => slots) })));
    }
    throw new Error("an evaluation never stops asking for more storage");
  };

  const codeHash = async (address: Hex): Promise<Hex> => {
    const known = hashes.get(address);
    if (known !== undefined) return known;
    await proveOnce(address, []);
    return hashes.get(address) ?? codeHash(address);
  };

  return { block, agreed, final, prove, read, codeHash };
}

/**
 * Does something that any one of the endpoints that agreed can do: each is tried until one can. What does not hold about a final block is remembered
 * against its endpoint.
 *
 * @throws KeysteadError `chain/unproven` (retryable) {errors}, `chain/unreachable` (retryable) {errors}
 * @example
 * await fromAny(state, (client) => fetchStorageProof(client, state.block, registry, [slot]));
 */
export async function fromAny<T>(
  { agreed, final }: { readonly agreed: readonly Endpoint[]; readonly final: boolean },
  act: (client: Client) => Promise<T>,
): Promise<T> {
  const errors: Record<string, string> = {};
  let reachable = false;
  let cause: KeysteadError | undefined;
  for (let round = 1; round <= ROUNDS; round++) {
    // Those that failed lately come last, and are not left out: there may be no other.
    for (const endpoint of agreed.toSorted((a, b) => Number(a.resting()) - Number(b.resting()))) {
      try {
        const done = await act(await endpoint.client());
        endpoint.note({ state: "ok" });
        return done;
      } catch (thrown) {
        const error = asEndpointError(thrown);
        cause = error;
        errors[endpoint.name] = error.code;
        if (!error.retryable) reachable = true;
        endpoint.note(
          FALSE.has(error.code) && final ? { state: "lies", code: error.code } : { state: "failed", error },
        );
      }
    }
    if (round < ROUNDS) await new Promise((resolve) => setTimeout(resolve, ROUND_PAUSE_MS));
  }
  throw new KeysteadError(
    reachable ? "chain/unproven" : "chain/unreachable",
    `no endpoint can show the chain's state: ${Object.entries(errors)
      .map(([name, code]) => `${name} ${code}`)
      .join(", ")}`,
    {
      argument: "endpoints",
      remedy: "Use endpoints that offer eth_getProof and eth_getLogs for recent blocks.",
      retryable: true,
      details: { errors },
      cause,
    },
  );
}
