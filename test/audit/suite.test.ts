import { expect } from "chai";
import { network } from "hardhat";
import { auditSuite } from "../../src/audit/all.ts";
import { auditTable } from "../../src/audit/table.ts";
import { connect } from "../../src/chain/client.ts";
import type { Hex } from "../../src/core/bytes.ts";
import { tdxImage } from "../helpers/images.ts";
import { deployOpenSuite, NOTICE } from "../helpers/suite.ts";

describe("auditSuite", () => {
  it("proves an honest chain", async () => {
    const connection = await network.create();
    const suite = await deployOpenSuite(connection);
    await suite.registry
      .connect(suite.admin)
      .createServiceWithImage(
        { admin: suite.admin.address, noticePeriod: NOTICE, description: "a", devices: [], requireUpToDateTcb: true },
        `0x${"11".repeat(32)}`,
        tdxImage("one"),
        "v1",
      );
    await suite.registry
      .connect(suite.eve)
      .addSecretKeyByImage(tdxImage("sealed"), [], false, `0x${"12".repeat(32)}`, "b", "0x1234");
    const client = await connect(connection.provider);
    const audit = await auditSuite(client, {
      registry: (await suite.registry.getAddress()) as Hex,
      policy: (await suite.policy.getAddress()) as Hex,
      fromBlock: 0,
    });
    console.log(
      audit.calls,
      audit.block,
      audit.services.map((s) => [s.faults, s.reasons, s.differences]),
      audit.policy.faults,
      audit.policy.reasons,
    );
    console.log(auditTable(audit));
    expect(audit.verdict).to.equal("proven");
  });
});
