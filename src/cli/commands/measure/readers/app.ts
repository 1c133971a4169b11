import { dirname, join } from "node:path";
import { KeysteadError } from "../../../../core/errors.ts";
import {
  type AppComposeCandidate,
  type AppConfig,
  buildAppCompose,
  parseAppConfig,
  parseEnvNames,
} from "../../../../core/evidence/app-compose.ts";
import { computeComposeHash } from "../../../../core/evidence/dstack.ts";
import { refusePage } from "../../../../core/evidence/page.ts";
import type { Finding, Measurement } from "../../../../core/measurement.ts";
import { quoteText, textFindings } from "../../../../core/text.ts";
import { type InputFile, type Io, inputFile } from "../../../io.ts";
import { jsonObject, OS_IMAGE_OPTIONS, readOptional, readOsImage, TEXT_LIMIT, textOption } from "../deployment.ts";
import { fileFindings } from "../evidence-file.ts";
import { readComposeFile } from "../compose-file.ts";
import type { InputReader, ReaderArguments } from "../reader.ts";
import { measureAppCompose } from "./dstack.ts";

async function read(io: Io, { inputs, options }: ReaderArguments): Promise<Measurement> {
  const name = inputs[0] ?? "-";
  const file = await io.readFile(name, { limit: TEXT_LIMIT, argument: "app.json" });
  const app = parseAppConfig(file.bytes);
  const folder = name === "-" ? "." : dirname(name);
  const osImage = await readOsImage(io, options);
  const facts = { os_image: `${app.osImage || "not said"} (by name)` };
  if (app.appComposeFile !== "") {
    const finished = await io.readFile(join(folder, app.appComposeFile), {
      limit: TEXT_LIMIT,
      argument: "app_compose_file",
    });
    const measurement = measureAppCompose(finished, "app", osImage);
    return {
      ...measurement,
      facts: { ...measurement.facts, format: "dstack-cloud app.json with a finished app-compose", ...facts },
      sources: [file.source, ...measurement.sources],
      findings: [...fileFindings(file), ...measurement.findings],
    };
  }

  const compose = await readCompose(io, folder, app);
  const prelaunch = await readOptional(io, join(folder, app.prelaunchScript), "prelaunch_script");
  const env = await readOptional(io, join(folder, app.envFile), "env_file");
  const candidates = buildAppCompose(app, {
    dockerCompose: compose.bytes,
    prelaunch: prelaunch?.bytes,
    env: env?.bytes,
  });
  const written = textOption(options, "written");
  const chosen = await choose(io, candidates, written);
  // The implied file exists only here; its hash is the register itself.
  const implied = inputFile("app-compose.json as dstack-cloud would write it", chosen.bytes);
  const measurement = measureAppCompose(implied, "app", osImage);
  for (const one of [prelaunch, env]) if (one !== undefined) refusePage(one.bytes, one.name);
  const sources = [file, compose, ...(prelaunch === undefined ? [] : [prelaunch])];
  return {
    ...measurement,
    facts: {
      ...measurement.facts,
      format: "dstack-cloud app.json",
      ...facts,
      pre_launch_script: prelaunch === undefined ? "none" : prelaunch.name,
      // Its values are secrets: neither they nor a hash of them is shown.
      env_file: env === undefined ? "none" : env.name,
    },
    sources: [...sources.map(({ source }) => source), ...measurement.sources],
    findings: [
      ...sources.flatMap(fileFindings),
      ...sources.slice(1).flatMap((one) => composeFindings(one)),
      ...(env === undefined ? [] : envFindings(env)),
      ...measurement.findings,
    ],
    unchecked: [
      ...measurement.unchecked,
      "That dstack-cloud is of a version that writes app-compose.json as the one this was learnt from (key order, indent of two).",
    ],
  };
}

async function readCompose(io: Io, folder: string, app: AppConfig): Promise<InputFile> {
  const name = join(folder, app.dockerComposeFile);
  const compose = await readOptional(io, name, "docker_compose_file");
  if (compose !== undefined) {
    refusePage(compose.bytes, "docker_compose_file");
    readComposeFile(compose);
    return compose;
  }
  throw new KeysteadError("app/no-compose", `there is no ${name}, which app.json names as docker_compose_file`, {
    argument: "docker_compose_file",
    remedy: "Put the file beside app.json: dstack-cloud would deploy an app without containers.",
  });
}

async function choose(
  io: Io,
  candidates: readonly AppComposeCandidate[],
  written: string | undefined,
): Promise<AppComposeCandidate> {
  const [first, second] = candidates;
  if (written !== undefined) {
    const file = await io.readFile(written, { limit: TEXT_LIMIT, argument: "--written" });
    const hash = computeComposeHash(file.bytes);
    const found = candidates.find(({ composeHash }) => composeHash === hash);
    if (found !== undefined) return found;
    const trimmed = new TextDecoder().decode(file.bytes).replace(/\r?\n$/, "");
    if (candidates.some(({ composeHash }) => composeHash === computeComposeHash(new TextEncoder().encode(trimmed)))) {
      throw new KeysteadError(
        "app/written-differs",
        `${written} is what dstack-cloud writes, with a newline more at its end`,
        {
          argument: "--written",
          remedy: "Remove the final newline, which an editor added: deployed like this, the file has another hash.",
          details: { written: hash, expected: candidates.map(({ composeHash }) => composeHash) },
        },
      );
    }
    throw new KeysteadError("app/written-differs", `${written} is not what dstack-cloud writes for this app.json`, {
      argument: "--written",
      remedy: "Run dstack-cloud prepare again, or measure the file itself with keystead measure dstack.",
      details: { written: hash, expected: candidates.map(({ composeHash }) => composeHash) },
    });
  }
  if (first !== undefined && second === undefined) return first;
  const shown = candidates
    .slice(0, 6)
    .map(({ allowedEnvs, composeHash }) => `\n    ${composeHash} (${allowedEnvs.join(", ")})`);
  throw new KeysteadError(
    "app/order-not-fixed",
    `dstack-cloud writes allowed_envs in an order that changes from run to run, so this app has ${candidates.length} possible compose hashes:${shown.join("")}${candidates.length > shown.length ? "\n    …" : ""}`,
    {
      argument: "env_file",
      remedy:
        "Run dstack-cloud prepare and give --written shared/app-compose.json; then set app_compose_file to a copy of it, so that deploying uses the same bytes.",
      details: { candidates: candidates.map(({ allowedEnvs, composeHash }) => ({ allowedEnvs, composeHash })) },
    },
  );
}

/** Names that no shell has, which dstack-cloud takes as they stand. Shown as they are, with what is invisible in them. */
function envFindings(env: InputFile): readonly Finding[] {
  return parseEnvNames(env.bytes)
    .filter((name) => !/^[A-Za-z_][A-Za-z0-9_]*$/.test(name))
    .map((name) => ({
      code: "app/env-name",
      severity: "warning",
      message: `${env.name} names ${quoteText(name)}, which no program can read; dstack-cloud takes it as it stands, into the measurement`,
    }));
}

/** Findings of a file that the tool reads as text and writes again. */
function composeFindings(file: InputFile): readonly Finding[] {
  return textFindings(file.bytes, file.name)
    .filter(({ code }) => code !== "text/not-utf8")
    .map((finding) =>
      finding.code === "text/crlf"
        ? { ...finding, message: `${file.name} has lines that end in CR LF; dstack-cloud turns them into LF` }
        : finding,
    );
}

/** dstack-cloud projects. */
export const readers: readonly InputReader[] = [
  {
    name: "app",
    summary: "a dstack-cloud app.json with the files beside it: the app-compose that it implies",
    inputs: ["app.json"],
    options: [
      ...OS_IMAGE_OPTIONS,
      { flags: "--written <file>", description: "the app-compose.json that dstack-cloud prepare wrote, to check" },
    ],
    read,
    detect: (file) => {
      const value = jsonObject(file);
      return value?.os_image !== undefined && value.manifest_version === undefined;
    },
  },
];
