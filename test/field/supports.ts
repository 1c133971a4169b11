/** Stands between the parts of a row's title. */
export const ROW_SEPARATOR = " | ";

/**
 * A row of docs/compatibility.md, and the test that holds it: what of the world outside works here. The table is generated from these titles, so a row
 * that no passing test shows cannot stand in it. A test whose input is not on this machine skips, and says so.
 *
 * @param system what runs out there: `AWS Nitro`, `dstack-kms`, `Infura`, `Safe`
 * @param version which of its versions, or since when
 * @param works what works with it here, in a phrase
 * @throws RangeError if a part would break the table
 */
export function supports(system: string, version: string, works: string, body: Mocha.Func | Mocha.AsyncFunc): void {
  const parts = [system, version, works];
  const bad = parts.find((part) => part.trim() === "" || /[|\n]/.test(part));
  if (bad !== undefined) throw new RangeError(`a part of a row is empty or has a | or a line break: ${bad}`);
  it(parts.join(ROW_SEPARATOR), body as Mocha.AsyncFunc);
}
