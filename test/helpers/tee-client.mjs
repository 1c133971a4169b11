// A device command for tests: node tee-client.mjs URL REPORT_DATA. The TEE behind the URL is in the test's own process.
// Mocha loads every file under test/: only as a program of its own does this one act.
if (import.meta.main) {
  const [, , url, reportData] = process.argv;
  let input = "";
  for await (const chunk of process.stdin) input += chunk;
  if (JSON.parse(input).report_data !== reportData) throw new Error("standard input and argument disagree");
  const response = await fetch(url, { method: "POST", body: input });
  if (!response.ok) throw new Error(`HTTP ${response.status}`);
  process.stdout.write(await response.text());
}
