import { text } from "node:stream/consumers";
import { createLoadClient, type SteadyLoad } from "./load.ts";

// Sends requests at a steady rate from a process of its own; see `sendSteadily`. Mocha loads every file under test/: only as a program does this one act.
if (import.meta.main) {
  const { url, path, bodies, perSecond }: SteadyLoad = JSON.parse(await text(process.stdin));
  const client = createLoadClient(url, 64);
  const start = performance.now();
  const times = await Promise.all(
    bodies.map(async (body, index) => {
      const wait = (index * 1000) / perSecond - (performance.now() - start);
      await new Promise((resolve) => setTimeout(resolve, Math.max(0, wait)));
      const { status, body: answer, ms } = await client.post(path, body);
      if (status !== 200) throw new Error(`${status}: ${answer}`);
      return ms;
    }),
  );
  client.close();
  const { user, system } = process.cpuUsage();
  process.stdout.write(JSON.stringify({ times, cpuSeconds: (user + system) / 1e6 }));
}
