import { type Draft, draftOf, paramsOf } from "./settings.ts";

/** The pages, by their names in the fragment. */
export const PAGES = ["overview", "services", "service", "policy", "check", "sign", "connect"] as const;
export type Page = (typeof PAGES)[number];

/** Where the reader is: `#/service/0x…?rpc=…&registry=…`. */
export interface Route {
  readonly page: Page;
  /** The service's id, for a service's page. */
  readonly argument: string;
  readonly draft: Draft;
}

/**
 * Reads a fragment; what it does not know is the overview.
 *
 * @example
 * parseRoute("#/service/0xab?rpc=http://127.0.0.1:8545").page; // "service"
 */
export function parseRoute(fragment: string): Route {
  const [path = "", ...rest] = fragment.replace(/^#\/?/, "").split("?");
  const [name = "", argument = ""] = path.split("/");
  const page = PAGES.find((known) => known === name) ?? "overview";
  return { page, argument, draft: draftOf(new URLSearchParams(rest.join("?"))) };
}

/**
 * A link within the explorer: the deployment stays in it, so that it can be sent to somebody else.
 *
 * @example
 * linkTo("services", draft); // "#/services?rpc=…"
 */
export function linkTo(page: Page, draft: Draft, argument = ""): string {
  const params = paramsOf(draft).toString();
  return `#/${page}${argument === "" ? "" : `/${argument}`}${params === "" ? "" : `?${params}`}`;
}
