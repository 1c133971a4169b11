import { AbiCoder, concat, getAddress, TypedDataEncoder, toBeHex } from "ethers";
import { SAFE_RELEASES, SAFE_VERSIONS, type SafeVersion } from "../chain/safe-releases.ts";
import { fromHex, type Hex, Reader, toHex } from "../core/bytes.ts";
import { KeysteadError } from "../core/errors.ts";
import { INTERFACES } from "./abis.ts";

/**
 * Where each release's MultiSendCallOnly lives. 1.3.0 has two sets: a Safe's own chain decides which one its tools use; the first is the default.
 */
export const MULTI_SEND_CALL_ONLY: Readonly<Record<SafeVersion, readonly string[]>> = {
  "1.3.0": SAFE_RELEASES["1.3.0"].multiSendCallOnly.addresses,
  "1.4.1": SAFE_RELEASES["1.4.1"].multiSendCallOnly.addresses,
  "1.5.0": SAFE_RELEASES["1.5.0"].multiSendCallOnly.addresses,
};

export { SAFE_VERSIONS, type SafeVersion };

/** Safe's own tools count nonces in numbers of JavaScript, and a plan goes a few steps beyond the first. */
export const MAX_NONCE = 2n ** 53n - 16n;

/** One call, as a Safe or a timelock makes it. */
export interface Call {
  readonly to: string;
  /** Wei. */
  readonly value: bigint;
  readonly data: Hex;
}

/** A Safe as an operation assumes it to be when it signs. */
export interface SafeRef {
  readonly address: string;
  readonly version: SafeVersion;
  /** The MultiSendCallOnly through which it makes several calls at once. */
  readonly multiSend: string;
  /** The nonce of its next transaction. */
  readonly nonce: bigint;
}

/** What owners of a Safe sign, but for the gas fields, which are all zero here. */
export interface SafeTransaction extends Call {
  /** 0: CALL. 1: DELEGATECALL, to MultiSendCallOnly and nothing else. */
  readonly operation: 0 | 1;
  readonly nonce: bigint;
}

/** The three hashes of a Safe transaction. A hardware wallet shows the first two. */
export interface SafeHashes {
  readonly domainHash: Hex;
  readonly messageHash: Hex;
  readonly safeTxHash: Hex;
}

/** Safe.sol since 1.3.0: no name, no version. */
export const SAFE_TX = {
  SafeTx: [
    { name: "to", type: "address" },
    { name: "value", type: "uint256" },
    { name: "data", type: "bytes" },
    { name: "operation", type: "uint8" },
    { name: "safeTxGas", type: "uint256" },
    { name: "baseGas", type: "uint256" },
    { name: "gasPrice", type: "uint256" },
    { name: "gasToken", type: "address" },
    { name: "refundReceiver", type: "address" },
    { name: "nonce", type: "uint256" },
  ],
};

const ZERO = "0x0000000000000000000000000000000000000000";

/**
 * The hashes of a Safe transaction with all gas fields zero, by ethers' EIP-712 encoder: another implementation than the one that signs
 * (protocol-kit). Valid for Safe 1.3.0, 1.4.1 and 1.5.0, whose domain is `EIP712Domain(uint256 chainId,address verifyingContract)`.
 *
 * @example
 * const { domainHash, messageHash } = hashSafeTransaction(1n, safe, transaction); // what the Ledger shows
 */
export function hashSafeTransaction(chainId: bigint, safe: string, transaction: SafeTransaction): SafeHashes {
  const domain = { chainId, verifyingContract: safe };
  const { to, value, data, operation, nonce } = transaction;
  const message = {
    ...{ to, value, data, operation, nonce },
    ...{ safeTxGas: 0n, baseGas: 0n, gasPrice: 0n, gasToken: ZERO, refundReceiver: ZERO },
  };
  return {
    domainHash: hex(TypedDataEncoder.hashDomain(domain)),
    messageHash: hex(TypedDataEncoder.from(SAFE_TX).hash(message)),
    safeTxHash: hex(TypedDataEncoder.hash(domain, SAFE_TX, message)),
  };
}

/**
 * The transaction by which a Safe makes some calls: one is a plain CALL, several are one DELEGATECALL to MultiSendCallOnly.
 *
 * @throws KeysteadError `safe/no-calls`
 * @example
 * buildSafeTransaction(safe, [call]).operation; // 0
 */
export function buildSafeTransaction(safe: SafeRef, calls: readonly Call[], nonce = safe.nonce): SafeTransaction {
  const [first, ...others] = calls;
  if (first === undefined) {
    throw new KeysteadError("safe/no-calls", "a Safe transaction needs at least one call", {
      argument: "calls",
      remedy: "Pass at least one call.",
    });
  }
  if (others.length === 0) return { ...first, operation: 0, nonce };
  return { to: safe.multiSend, value: 0n, data: encodeMultiSend(calls), operation: 1, nonce };
}

/**
 * Calldata of `multiSend(bytes)`: each call packed as `operation:u8 = 0 ‖ to:20 ‖ value:u256 ‖ length:u256 ‖ data`.
 *
 * @example
 * encodeMultiSend([{ to, value: 0n, data: "0x" }]);
 */
export function encodeMultiSend(calls: readonly Call[]): Hex {
  const packed = calls.map(({ to, value, data }) =>
    concat(["0x00", to, toBeHex(value, 32), toBeHex((data.length - 2) / 2, 32), data]),
  );
  return hex(INTERFACES.multiSend.encodeFunctionData("multiSend", [concat(packed)]));
}

/** A call inside a MultiSend; a MultiSendCallOnly refuses any that is a DELEGATECALL. */
export interface PackedCall extends Call {
  readonly operation: number;
}

/**
 * Unpacks the bytes that `multiSend(bytes)` takes.
 *
 * @throws KeysteadError `bytes/truncated` where the last call is cut off, `safe/multisend-malformed` where a length is absurd
 * @example
 * unpackMultiSend("0x00…").map(({ to }) => to);
 */
export function unpackMultiSend(packed: Hex): readonly PackedCall[] {
  const reader = new Reader(fromHex(packed, "transactions"), "transactions");
  const calls: PackedCall[] = [];
  while (reader.remaining > 0) {
    const operation = reader.u8("operation");
    const to = getAddress(toHex(reader.bytes(20, "to")));
    const value = BigInt(toHex(reader.bytes(32, "value")));
    const length = BigInt(toHex(reader.bytes(32, "length")));
    if (length > BigInt(reader.remaining)) {
      throw new KeysteadError("safe/multisend-malformed", `call ${calls.length} claims ${length} bytes of data`, {
        argument: "transactions",
        remedy: "Don't sign it: MultiSend would read past its end.",
      });
    }
    calls.push({ operation, to, value, data: toHex(reader.bytes(Number(length), "data")) });
  }
  return calls;
}

/** Bytes that ethers encoded, typed. */
export function hex(text: string): Hex {
  return toHex(fromHex(text, "encoding"));
}

/**
 * `abi.encode` as typed hex.
 *
 * @example
 * abiEncode(["uint8"], [1n]);
 */
export function abiEncode(types: readonly string[], values: readonly unknown[]): Hex {
  return hex(AbiCoder.defaultAbiCoder().encode(types, values));
}
