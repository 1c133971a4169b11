/**
 * What the main operations cost, through the proxy, against a budget for each: prints a table and fails above budget.
 *
 *     npx hardhat run scripts/gas-benchmark.ts
 *     npm run gas -- --check      fails too if any figure is not exactly the one in snapshots/gas.json, lower ones included
 *     npm run gas -- --update     writes snapshots/gas.json
 *
 * Realistic input: a TDX image with mrtd and rtmr0–3 (246 bytes), 60-character descriptions. `peer` is what dstack's contracts take for the nearest
 * operation, with their own settings (see scripts/gas/measure.ts); they store less, keep no history and emit a 32-byte hash.
 */
import { parseMode, settleSnapshot } from "../tools/snapshot.ts";
import { measureGas } from "./gas/measure.ts";
import { findOverBudget, formatGasTable, hasColor } from "./gas/table.ts";

// `hardhat run` passes no arguments on: tools/gas.mjs hands them over here.
const option = process.env.KEYSTEAD_GAS_MODE;
const mode = parseMode(option ? [option] : []);

const rows = await measureGas();
console.log(formatGasTable(rows, { color: hasColor(process.stdout, process.env) }));
const content = Object.fromEntries(rows.map(({ operation, used, unit = "gas" }) => [operation, `${used} ${unit}`]));
const isSettled = await settleSnapshot(mode, { file: "snapshots/gas.json", script: "gas", content });
const over = findOverBudget(rows);
if (over.length > 0) console.error(`${over.length} above budget: ${over.join("; ")}`);
if (!isSettled || over.length > 0) process.exitCode = 1;
