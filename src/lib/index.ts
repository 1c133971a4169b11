/*
 * The face of the package `keystead`: one chain, asked without believing it, and the errors that everything throws. See README.md here.
 */
export { type Block, type BlockTag, fetchBlock } from "../chain/block.ts";
export {
  type Client,
  type ClientOptions,
  connect,
  type Eip1193Provider,
  type SendingProvider,
} from "../chain/client.ts";
export { type Deployment, parseDeployment } from "../chain/deployment.ts";
export { type AccountProof, fetchStorageProof, type ProvenAccount, verifyStorageProof } from "../chain/proof.ts";
export {
  readDevice,
  readImage,
  readKmsIdentity,
  readPolicy,
  readPolicyDevice,
  readPolicyEntry,
  readService,
  readTeeRules,
} from "../chain/reads.ts";
export { policySlots, serviceSlots } from "../chain/slots.ts";
export { fromHex, type Hex, toHex } from "../core/bytes.ts";
export { isKeysteadError, KeysteadError, type KeysteadErrorOptions } from "../core/errors.ts";
export { printable } from "../core/printable.ts";
