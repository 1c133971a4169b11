import { expect } from "chai";
import type { Interface } from "ethers";
import hre from "hardhat";
import type { Connection } from "../../deploy/connection.ts";
import { extractRevertData } from "../../deploy/safe/account.ts";
import { INTERFACES } from "../../src/governance/abis.ts";
import { PHRASES } from "../../src/governance/words.ts";
import { FUNCTIONS, type FunctionRecord } from "../../src/protocol/functions.ts";
import { addressOf } from "../helpers/governance.ts";
import { PLATFORM, tdxImage } from "../helpers/images.ts";
import { deploySuite, type Suite } from "../helpers/suite.ts";

const functionsOf = (abi: Interface): readonly string[] => {
  const names: string[] = [];
  abi.forEachFunction((item) => {
    if (!item.constant) names.push(item.name);
  });
  return names.sort();
};

/** Arguments that any function decodes; who may call is checked before what they say. */
const ARGUMENTS: Readonly<Record<string, unknown>> = {
  bytes: "0x",
  string: "",
  bool: true,
  "bytes[]": [],
  address: addressOf(9),
};

describe("lanes", () => {
  for (const contract of ["policy", "registry", "timelock"] as const) {
    it(`judge every function of the ${contract} that changes state, and none besides`, () => {
      const names = functionsOf(INTERFACES[contract]);
      expect(new Set(names).size, "an overload would share a lane").to.equal(names.length);
      expect(Object.keys(FUNCTIONS[contract]).sort()).to.deep.equal(names);
    });

    it(`have words for every function of the ${contract} that a proposal can hold`, () => {
      const wordless = Object.keys(FUNCTIONS[contract]).filter((name) => PHRASES[contract][name] === undefined);
      expect(wordless.filter((name) => name !== "initialize" && !name.startsWith("onERC"))).to.deep.equal([]);
      for (const name of Object.keys(PHRASES[contract])) expect(functionsOf(INTERFACES[contract])).to.include(name);
    });
  }

  describe("against the contracts' own refusals", () => {
    let connection: Connection;
    let suite: Suite;
    before(async () => {
      connection = await hre.network.create({ network: "default" });
      suite = await deploySuite(connection as Suite["connection"]);
    });
    after(() => connection.close());

    /** Who a stranger is told must call: by the error that the contract refuses with. */
    async function refusal(contract: "policy" | "registry", name: string): Promise<string> {
      const abi = INTERFACES[contract];
      const inputs = abi.getFunction(name)?.inputs ?? [];
      const args = inputs.map(({ type, baseType, name: argument }) => {
        if (argument === "image") return PLATFORM.tdx;
        if (type === "bytes32[]") return [`0x${"11".repeat(32)}`];
        if (argument === "newImage") return tdxImage("x");
        if (baseType === "tuple") return [1, `0x${"11".repeat(32)}`, addressOf(4), `0x${"22".repeat(32)}`];
        if (/^bytes\d+$/.test(type)) return `0x${"11".repeat(Number(type.slice(5)))}`;
        return Object.hasOwn(ARGUMENTS, type) ? ARGUMENTS[type] : 1;
      });
      const to = await suite[contract].getAddress();
      try {
        await connection.ethers.provider.call({
          ...{ to, from: suite.eve.address, data: abi.encodeFunctionData(name, args) },
        });
      } catch (error) {
        return abi.parseError(extractRevertData(error) ?? "0x")?.name ?? "unknown";
      }
      return "allowed";
    }

    const REFUSALS = {
      governor: "AccessControlUnauthorizedAccount",
      guardian: "Governed_NeitherGuardianNorGovernor",
    } as const;

    for (const contract of ["policy", "registry"] as const) {
      it(`of the ${contract}`, async () => {
        for (const [name, { by }] of Object.entries<FunctionRecord>(FUNCTIONS[contract])) {
          if (by !== "governor" && by !== "guardian") continue;
          const expected = contract === "registry" && by === "guardian" ? "KmsRegistry_ServiceUnknown" : REFUSALS[by];
          expect(await refusal(contract, name), name).to.equal(expected);
        }
      });
    }
  });
});
