import { readFile } from "node:fs/promises";
import type { Binding } from "../core/binding.ts";
import type { Hex } from "../core/bytes.ts";
import { isKeysteadError, KeysteadError } from "../core/errors.ts";
import { hashForReceipt } from "../core/release.ts";
import type { WireEvidence } from "../core/release-wire.ts";
import type { TcbReport } from "../core/tcb.ts";
import type { MachineFacts } from "./decide.ts";
import { checkBinding } from "./evidence/binding.ts";
import { createChainCache } from "./evidence/chain-cache.ts";
import {
  type CollateralSource,
  type CollateralState,
  createCollateralCache,
  createFileSource,
} from "./evidence/collateral.ts";
import { createSnpSignerSource } from "./evidence/kds.ts";
import { verifyNitroDocument } from "./evidence/nitro.ts";
import { createPccsSource } from "./evidence/pccs.ts";
import { createFetchWithCa } from "./evidence/request.ts";
import { type SnpCertificates, type SnpOptions, type VerifiedSnp, verifySnpReport } from "./evidence/snp.ts";
import { createSnpCrlSource } from "./evidence/snp-crl.ts";
import {
  foreseeTdx,
  readTdxCollateralKey,
  type TdxCollateralKey,
  type VerifiedTdx,
  verifyTdxQuote,
} from "./evidence/tdx.ts";
import type { VerifiedTdxCollateral } from "./evidence/tdx-collateral.ts";
import type { Trust } from "./evidence/x509.ts";
import { type FactsOptions, factsOf, tcbReportOf } from "./facts.ts";

/** How evidence is judged. Plain data: it travels to worker threads. */
export interface JudgeOptions {
  /** Where TDX collateral comes from; without either, TDX evidence cannot be checked. */
  readonly pccs?:
    | {
        /** Asked in turn. */
        readonly urls: readonly string[];
        readonly rootCaCrlUrl?: string | undefined;
        /** PEM: authorities that a PCCS's own certificate may be under, beside the public ones. */
        readonly ca?: string | undefined;
        /** Whether Intel's early set is looked at as well. */
        readonly early: boolean;
      }
    | undefined;
  readonly collateralFiles?: readonly string[] | undefined;
  /** AMD's revocation lists, DER, by product; one that is given here counts before a machine's own. */
  readonly snpCrlFiles?: Readonly<Partial<Record<string, string>>> | undefined;
  /**
   * Where the lists of the other products, and intermediates that are not known, are fetched: AMD's key distribution service. A list that can't be had is
   * 503, and a machine's own does not stand in for it.
   */
  readonly snpKdsUrl?: string | undefined;
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
  /** Why the machine has its TCB status; `undefined` for evidence that has none. */
  readonly tcb: TcbReport | undefined;
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
    // Evidence of a moment ago, under a slow clock, passes in a moment.
    retryable: code === "collateral/unavailable" || (known && cause.retryable),
    details: {
      reason: known ? cause.code : "internal",
      retryAfterSeconds: known ? cause.details.retryAfterSeconds : undefined,
    },
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

function sourcesOf(options: JudgeOptions, update: "standard" | "early"): readonly CollateralSource[] {
  const { pccs, collateralFiles } = options;
  if (pccs !== undefined) {
    const { urls, rootCaCrlUrl, ca } = pccs;
    const ask = ca === undefined ? fetch : createFetchWithCa(ca);
    return urls.map((url) => createPccsSource({ url, fetch: ask, rootCaCrlUrl, update }));
  }
  return [collateralFiles === undefined ? NO_SOURCE : createFileSource(collateralFiles)];
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
  const cache = createCollateralCache({ sources: sourcesOf(options, "standard"), unsafeTestRoots });
  const early =
    options.pccs?.early === true
      ? createCollateralCache({ sources: sourcesOf(options, "early"), unsafeTestRoots })
      : undefined;
  const { snpCrlFiles, snpKdsUrl } = options;
  const kds = snpKdsUrl === undefined ? undefined : { url: snpKdsUrl, fetch, unsafeTestRoots };
  const lists = kds === undefined ? undefined : createSnpCrlSource(kds);
  const signers = kds === undefined ? undefined : createSnpSignerSource(kds);
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

  /** What Intel's early set says of a machine, as far as that is at hand: nobody waits for it, and its failures are in the metrics alone. */
  const foresee = (verified: VerifiedTdx, key: TdxCollateralKey, atUnixSeconds: number): Pick<TcbReport, "early"> => {
    const collateral = early?.peek(key, atUnixSeconds);
    if (collateral === undefined) return {};
    try {
      return { early: foreseeTdx(verified, collateral, { chains, unsafeTestRoots }) };
    } catch (error) {
      if (!isKeysteadError(error)) throw error;
      return { early: { status: error.code, parts: [] } };
    }
  };

  /** AWS hands out the VLEK alone: an intermediate that neither came nor is known is fetched. */
  const withSigner = async (given: SnpCertificates, report: Uint8Array, snp: SnpOptions): Promise<SnpCertificates> => {
    if (given.signer !== undefined || signers === undefined) return given;
    try {
      verifySnpReport(report, given, snp);
      return given;
    } catch (error) {
      if (!isKeysteadError(error, "snp/signer-missing")) return given; // told again by who judges
    }
    const signer = await attempt("collateral/unavailable", () => signers.get(given.endorsementKey));
    return { ...given, signer };
  };

  const verify = async (evidence: WireEvidence, bytes: Uint8Array, atUnixSeconds: number) => {
    const common = { atUnixSeconds, chains, unsafeTestRoots };
    if (evidence.kind === "tdx") {
      const key = await attempt("evidence/not-genuine", () => readTdxCollateralKey(bytes, { chains, unsafeTestRoots }));
      const collateral: VerifiedTdxCollateral = await attempt("collateral/unavailable", () =>
        cache.get(key, atUnixSeconds),
      );
      const verified = await attempt("evidence/not-genuine", () => verifyTdxQuote(bytes, collateral, common));
      return { ...verified, tcb: { ...verified.tcb, ...foresee(verified, key, atUnixSeconds) } };
    }
    if (evidence.kind === "nitro") {
      const maxAgeSeconds = options.nitroMaxAgeSeconds;
      return await attempt("evidence/not-genuine", () => verifyNitroDocument(bytes, { ...common, maxAgeSeconds }));
    }
    const brought = await attempt("request/malformed", () => decodeCertificates(evidence.certificates));
    const given = await withSigner(brought, bytes, { ...common, allowedVmpls: options.snpVmpls });
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
          tcb: tcbReportOf(verified, { snpMinimumTcb: options.snpMinimumTcb }),
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

function decodeCertificates(
  certificates: Extract<WireEvidence, { readonly kind: "snp" }>["certificates"],
): SnpCertificates {
  const { endorsementKey, signer, root, crl } = certificates;
  return {
    endorsementKey: fromBase64(endorsementKey, "endorsementKey"),
    ...(signer === undefined ? {} : { signer: fromBase64(signer, "signer") }),
    ...(root === undefined ? {} : { root: fromBase64(root, "root") }),
    ...(crl === undefined ? {} : { crl: fromBase64(crl, "crl") }),
  };
}
