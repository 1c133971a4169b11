#!/usr/bin/env node
// Completes package-lock.json with the platform packages that the registry at hand does not carry.
//
// Native tools (anvil, Biome) list one optional package per platform. A registry mirror that lacks some of them makes `npm install` write
// a lock file without them, which `npm ci` then refuses on every platform. This adds the missing rows by name, version, os and cpu,
// so the lock file is whole and npm passes over what does not fit the machine. The added rows carry no integrity hash, because
// nothing was there to hash: npm records one on the platform that installs them. Run it after changing dependencies.
import { readFileSync, writeFileSync } from "node:fs";

const CPU = { amd64: "x64", x64: "x64", arm64: "arm64", ia32: "ia32" };
const PLATFORM = /(?<os>android|darwin|freebsd|linux|win32)-(?<cpu>amd64|x64|arm64|ia32)(?:-(?<libc>musl|gnu))?$/;

const lock = JSON.parse(readFileSync("package-lock.json", "utf8"));
const added = [];
for (const [path, { optionalDependencies = {}, dev }] of Object.entries(lock.packages)) {
  if (path === "") continue;
  for (const [name, version] of Object.entries(optionalDependencies)) {
    const platform = PLATFORM.exec(name)?.groups;
    const key = `node_modules/${name}`;
    if (!platform || lock.packages[key] || lock.packages[`${path}/${key}`] || !/^\d/.test(version)) continue;
    const libc = platform.os === "linux" && platform.libc ? { libc: [platform.libc === "gnu" ? "glibc" : "musl"] } : {};
    lock.packages[key] = {
      version,
      cpu: [CPU[platform.cpu]],
      ...(dev ? { dev } : {}),
      ...libc,
      optional: true,
      os: [platform.os],
    };
    added.push(`${name}@${version}`);
  }
}
const [root, ...rest] = Object.entries(lock.packages);
lock.packages = Object.fromEntries([root, ...rest.sort(([a], [b]) => (a < b ? -1 : 1))]);
writeFileSync("package-lock.json", `${JSON.stringify(lock, null, 2)}\n`);
console.log(added.length === 0 ? "package-lock.json is complete" : `added ${added.join(", ")}`);
