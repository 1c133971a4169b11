import { readFile } from "node:fs/promises";
import type { Binding } from "../core/binding.ts";
import type { Hex } from "../core/bytes.ts";
import { isKeysteadError, KeysteadError } from "../core/errors.ts";
import { hashForReceipt } from "../core/release.ts";
import type { WireEvidence } from "../core/release-wire.ts";
import type { MachineFacts } from "./decide.ts";
import { checkBinding } from "./evidence/binding.ts";
import { createChainCache } from "./evidence/chain-cache.ts";
import {
  type CollateralSource,
  type CollateralState,
  createCollateralCache,
  createFileSource,
  createPccsSource,
} from "./evidence/collateral.ts";
import { verifyNitroDocument } from "./evidence/nitro.ts";
import { type SnpOptions, type VerifiedSnp, verifySnpReport } from "./evidence/snp.ts";
import { createSnpCrlSource } from "./evidence/snp-crl.ts";
import { readTdxCollateralKey, verifyTdxQuote } from "./evidence/tdx.ts";
import type { VerifiedTdxCollateral } from "./evidence/tdx-collateral.ts";
import type { Trust } from "./evidence/x509.ts";
import { type FactsOptions, factsOf } from "./facts.ts";

/** How evidence is judged. Plain data: it travels to worker threads. */
export interface JudgeOptions {
  /** Where TDX collateral comes from; without either, TDX evidence cannot be checked. */
  readonly pccs?: { readonly url: string; readonly rootCaCrlUrl?: string | undefined } | undefined;
  readonly collateralFiles?: readonly string[] | undefined;
  /** AMD's revocation lists, DER, by product; one that is given here counts before a machine's own. */
  readonly snpCrlFiles?: Readonly<Partial<Record<string, string>>> | undefined;
  /** Where the lists of the other products are fetched; one that can't be had is 503, and a machine's own does not stand in for it. */
  readonly snpCrlUrl?: string | undefined;
  /** Whether SEV-SNP evidence without a revocation list is refused. */
  readonly requireSnpCrl: boolean;
  /** Privilege levels that may ask for keys. */
  readonly snpVmpls: readonly number[];
  /** From which TCB versions on a SEV-SNP machine counts as up to date. */
  readonly snpMinimumTcb?: FactsOptions["snpMinimumTcb"];
  /** How old a Nitro document may be, in seconds. */
  readonly nitroMaxAgeSeconds: number;
  /** Roots, DER, that are taken beside the vendors'. */
  readonly unsafeTestRoots?: readonly Uint8Array[] | undefined;
}

/** What was found out about a machine. */
export interface Judgement {
  readonly facts: MachineFacts;
  /** keccak-256 of the quote, report or document. */
  readonly evidenceHash: Hex;
  readonly trust: Trust["kind"];
}

/** Judges evidence: genuine, and made for this binding. */
export interface Judge {
  /**
   * @throws KeysteadError `evidence/not-genuine` {reason}, `collateral/unavailable` {reason} (retryable), `request/malformed` {reason}; reason is the code of
   * what was found
   */
  readonly judge: (evidence: WireEvidence, binding: Binding, atUnixSeconds: number) => Promise<Judgement>;
  readonly collateral: () => Promise<readonly CollateralState[]>;
  readonly close: () => Promise<void>;
}

/** Every failure while evidence is looked at is a refusal: what a verifier did not accept was not accepted, whatever it threw. */
const refuse = (code: "evidence/not-genuine" | "collateral/unavailable" | "request/malformed", cause: unknown) => {
  const known = isKeysteadError(cause);
  const remedy = known ? cause.remedy : "Report this: evidence must not make a verifier fail.";
  return new KeysteadError(code, known ? cause.message : "the evidence could not be judged", {
    argument: "evidence",
    remedy,
    retryable: code === "collateral/unavailable",
    details: { reason: known ? cause.code : "internal" },
    cause,
  });
};

async function attempt<T>(code: Parameters<typeof refuse>[0], act: () => T | Promise<T>): Promise<T> {
  try {
    return await act();
  } catch (cause) {
    throw refuse(code, cause);
  }
}

const NO_SOURCE: CollateralSource = {
  fetch: async () => {
    throw new KeysteadError("collateral/no-source", "this node has no source of TDX collateral", {
      argument: "collateral",
      remedy: "Configure evidence.pccs or evidence.collateralFiles.",
    });
  },
};

/**
 * A judge in this thread, with its own caches.
 *
 * @throws KeysteadError `collateral/bad-url`
 * @example
 * const { facts } = await createJudge(options).judge(evidence, binding, atUnixSeconds);
 */
export function createJudge(options: JudgeOptions): Judge {
  const { unsafeTestRoots } = options;
  const chains = createChainCache();
  const source =
    options.pccs !== undefined
      ? createPccsSource({
          url: options.pccs.url,
          fetch,
          ...(options.pccs.rootCaCrlUrl === undefined ? {} : { rootCaCrlUrl: options.pccs.rootCaCrlUrl }),
        })
      : options.collateralFiles !== undefined
        ? createFileSource(options.collateralFiles)
        : NO_SOURCE;
  const cache = createCollateralCache({ source, unsafeTestRoots });
  const { snpCrlFiles, snpCrlUrl } = options;
  const lists = snpCrlUrl === undefined ? undefined : createSnpCrlSource({ url: snpCrlUrl, fetch, unsafeTestRoots });
  const listOf = async (
    { product, endorsement }: VerifiedSnp,
    atUnixSeconds: number,
  ): Promise<Uint8Array | undefined> => {
    const path = snpCrlFiles?.[product];
    if (path === undefined) return await lists?.get(product, endorsement, atUnixSeconds);
    return await readFile(path).catch((cause: unknown) => {
      throw new KeysteadError("collateral/unreadable", `${path} cannot be read`, {
        argument: "evidence.snpCrlFiles",
        remedy: "Check the path and the file's rights.",
        retryable: true,
        cause,
      });
    });
  };

  const verify = async (evidence: WireEvidence, bytes: Uint8Array, atUnixSeconds: number) => {
    const common = { atUnixSeconds, chains, unsafeTestRoots };
    if (evidence.kind === "tdx") {
      const key = await attempt("evidence/not-genuine", () => readTdxCollateralKey(bytes, { chains, unsafeTestRoots }));
      const collateral: VerifiedTdxCollateral = await attempt("collateral/unavailable", () =>
        cache.get(key, atUnixSeconds),
      );
      return await attempt("evidence/not-genuine", () => verifyTdxQuote(bytes, collateral, common));
    }
    if (evidence.kind === "nitro") {
      const maxAgeSeconds = options.nitroMaxAgeSeconds;
      return await attempt("evidence/not-genuine", () => verifyNitroDocument(bytes, { ...common, maxAgeSeconds }));
    }
    const given = await attempt("request/malformed", () => decodeCertificates(evidence.certificates));
    const snp: SnpOptions = { ...common, allowedVmpls: options.snpVmpls, requireCrl: false };
    const first = await attempt("evidence/not-genuine", () => verifySnpReport(bytes, given, snp));
    const crl = await attempt("collateral/unavailable", () => listOf(first, atUnixSeconds));
    const last = crl === undefined ? given : { ...given, crl };
    const requireCrl = options.requireSnpCrl;
    return await attempt("evidence/not-genuine", () => verifySnpReport(bytes, last, { ...snp, requireCrl }));
  };

  return {
    judge: async (evidence, binding, atUnixSeconds) => {
      const field = { tdx: "quote", snp: "report", nitro: "document" }[evidence.kind];
      const bytes = await attempt("request/malformed", () => fromBase64(signedPart(evidence), field));
      const verified = await verify(evidence, bytes, atUnixSeconds);
      return await attempt("evidence/not-genuine", () => {
        checkBinding(verified, binding);
        return {
          facts: factsOf(verified, { snpMinimumTcb: options.snpMinimumTcb }),
          evidenceHash: hashForReceipt(bytes),
          trust: verified.trust.kind,
        };
      });
    },
    collateral: async () => cache.states(),
    close: async () => {},
  };
}

/** As `fromBase64` of core, in a tenth of its time: evidence is long, and Node's own decoder is lax but fast. */
function fromBase64(text: string, argument: string): Uint8Array {
  const bytes = Buffer.from(text, "base64");
  if (bytes.toString("base64") === text) return new Uint8Array(bytes);
  throw new KeysteadError("base64/malformed", `${argument} is not canonical base64`, {
    argument,
    remedy: "Give standard base64 with its = padding and nothing around it.",
  });
}

function signedPart(evidence: WireEvidence): string {
  if (evidence.kind === "tdx") return evidence.quote;
  return evidence.kind === "snp" ? evidence.report : evidence.document;
}

function decodeCertificates(certificates: Extract<WireEvidence, { readonly kind: "snp" }>["certificates"]) {
  const { endorsementKey, signer, root, crl } = certificates;
  return {
    endorsementKey: fromBase64(endorsementKey, "endorsementKey"),
    signer: fromBase64(signer, "signer"),
    ...(root === undefined ? {} : { root: fromBase64(root, "root") }),
    ...(crl === undefined ? {} : { crl: fromBase64(crl, "crl") }),
  };
}
