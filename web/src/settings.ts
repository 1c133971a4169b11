import { parseAddress } from "../../src/audit/walk.ts";
import { parseDeployment } from "../../src/chain/deployment.ts";
import type { Hex } from "../../src/core/bytes.ts";
import { KeysteadError } from "../../src/core/errors.ts";

/** Which deployment is looked at, and through which endpoint. */
export interface Settings {
  /** An `http(s)` URL. It may hold a key: it stands in the fragment, which browsers send to nobody. */
  readonly rpc: string;
  /** Another endpoint, which must have the same block. */
  readonly witness: string | undefined;
  readonly registry: Hex;
  readonly policy: Hex;
  /** Default: the account that holds the policy's GOVERNOR_ROLE. */
  readonly timelock: Hex | undefined;
  /** The block of the deployment, or an earlier one. */
  readonly fromBlock: number;
  /** The chain that must answer. */
  readonly chainId: number | undefined;
}

/** The fields of the form, as they are typed; also the names in the fragment. */
export const FIELDS = ["rpc", "witness", "registry", "policy", "timelock", "from", "chain"] as const;
export type Field = (typeof FIELDS)[number];
export type Draft = Readonly<Record<Field, string>>;

/** Nothing given. */
export const EMPTY_DRAFT: Draft = { rpc: "", witness: "", registry: "", policy: "", timelock: "", from: "", chain: "" };

/**
 * The form's fields as they stand in a fragment's parameters.
 *
 * @example
 * draftOf(new URLSearchParams("rpc=https://rpc.example&from=17")).from; // "17"
 */
export function draftOf(params: URLSearchParams): Draft {
  const draft = { ...EMPTY_DRAFT };
  for (const field of FIELDS) draft[field] = (params.get(field) ?? "").trim();
  return draft;
}

/**
 * The fragment's parameters for a form; empty fields are left out.
 *
 * @example
 * paramsOf(draft).toString();
 */
export function paramsOf(draft: Draft): URLSearchParams {
  return new URLSearchParams(
    FIELDS.flatMap((field): [string, string][] => (draft[field] === "" ? [] : [[field, draft[field]]])),
  );
}

/** What was wrong with which field. */
export type FieldErrors = Readonly<Partial<Record<Field, KeysteadError>>>;

/**
 * Checks a form.
 *
 * @returns the settings, or one error for each field that is wrong
 * @example
 * const { settings, errors } = checkDraft(draft);
 */
export function checkDraft(draft: Draft): { readonly settings: Settings | undefined; readonly errors: FieldErrors } {
  const errors: Partial<Record<Field, KeysteadError>> = {};
  const take = <T>(field: Field, read: () => T): T | undefined => {
    try {
      return read();
    } catch (error) {
      if (!(error instanceof KeysteadError)) throw error;
      errors[field] = error;
      return undefined;
    }
  };
  const rpc = take("rpc", () => parseEndpoint(draft.rpc, "rpc"));
  const witness = draft.witness === "" ? undefined : take("witness", () => parseEndpoint(draft.witness, "witness"));
  const registry = take("registry", () => parseAddress(draft.registry, "registry"));
  const policy = take("policy", () => parseAddress(draft.policy, "policy"));
  const timelock = draft.timelock === "" ? undefined : take("timelock", () => parseAddress(draft.timelock, "timelock"));
  const fromBlock = draft.from === "" ? 0 : take("from", () => parseWhole(draft.from, "from"));
  const chainId = draft.chain === "" ? undefined : take("chain", () => parseWhole(draft.chain, "chain"));
  if (Object.keys(errors).length > 0 || rpc === undefined || registry === undefined || policy === undefined) {
    return { settings: undefined, errors };
  }
  return { settings: { rpc, witness, registry, policy, timelock, fromBlock: fromBlock ?? 0, chainId }, errors };
}

/**
 * The form for a deployment's record (`deploy/deployments/NAME.json`); the endpoint stays what it is.
 *
 * @throws KeysteadError `deployment/invalid`
 * @example
 * draftFromRecord(await file.text(), draft).registry;
 */
export function draftFromRecord(text: string, draft: Draft): Draft {
  const { contracts, block, chainId } = parseDeployment(text);
  return {
    rpc: draft.rpc,
    witness: draft.witness,
    registry: contracts.registry.address,
    policy: contracts.policy.address,
    timelock: contracts.timelock.address,
    from: String(block),
    chain: String(chainId),
  };
}

function parseEndpoint(text: string, argument: string): string {
  if (URL.canParse(text) && /^https?:$/.test(new URL(text).protocol)) return text;
  throw new KeysteadError("chain/bad-endpoint", "the endpoint is no http or https URL", {
    argument,
    remedy: "Give a URL such as https://rpc.example or http://127.0.0.1:8545.",
  });
}

function parseWhole(text: string, argument: string): number {
  const number = /^\d{1,15}$/.test(text) ? Number(text) : Number.NaN;
  if (Number.isSafeInteger(number)) return number;
  throw new KeysteadError("web/number", `${argument} is no whole number`, {
    argument,
    remedy: "Give decimal digits.",
  });
}
