/*
 * What runs in a browser too: the explorer's signing page imports this file and nothing else of this room. A test holds everything that it reaches free
 * of Node, of signing code, and of keys.
 */

export type { Operation } from "./operation.ts";
export { requireSignable, type SignerCheck } from "./owners.ts";
export { type Row, renderRows } from "./present/layout.ts";
export { type Names, namesOf, parseAddressBook } from "./present/names.ts";
export { deviceLines, type SigningAs, screenRows } from "./present/screen.ts";
export { storyOf } from "./present/step.ts";
export { type PlannedTransaction, planAt, planTransactions } from "./transactions.ts";
export { typedDataOf } from "./typed-data.ts";
export { type Verification, verifyProposal } from "./verify.ts";
export { type SignatureFile, takeWalletSignature } from "./wallet.ts";
export { MAX_FOLDER_BYTES, MAX_FOLDER_FILES, placeFiles } from "./wallet-files.ts";
