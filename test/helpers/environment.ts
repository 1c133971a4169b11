import { join } from "node:path";

/**
 * What a program that a test starts finds in its environment: where programs are, and a cache of compiled sources, with which it starts in half the time
 * (the tests start some hundreds). Nothing else of whoever runs the tests.
 */
export const PROGRAM_ENVIRONMENT = {
  PATH: process.env.PATH ?? "",
  NODE_COMPILE_CACHE: join(import.meta.dirname, "..", "..", "node_modules", ".cache", "keystead-tests"),
} as const;
