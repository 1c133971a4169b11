/**
 * A row of docs/compatibility.md, and the test that holds it: what of the world outside works here. The table is generated from these titles, so a row
 * that no passing test shows cannot stand in it.
 *
 * @param system what runs out there: `AWS Nitro`, `dstack-kms`, `Infura`, `Safe`
 * @param version which of its versions, or since when
 * @param works what works with it here, in a phrase
 */
export function supports(system: string, version: string, works: string, body: Mocha.Func | Mocha.AsyncFunc): void {
  it(`${system} | ${version} | ${works}`, body as Mocha.AsyncFunc);
}
