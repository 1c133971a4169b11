import { createContext } from "preact";
import { useContext, useEffect, useState } from "preact/hooks";
import type { Hex } from "../../../src/core/bytes.ts";
import type { Account } from "../data/accounts.ts";
import type { Loaded } from "../data/load.ts";
import { linkTo, type Page, type Route } from "../route.ts";

/** What every page sees. */
export interface Model {
  readonly loaded: Loaded;
  readonly route: Route;
}

export const ModelContext = createContext<Model | undefined>(undefined);

/** The model, below the provider. */
export function useModel(): Model {
  const model = useContext(ModelContext);
  if (model === undefined) throw new Error("no model: a page stands outside of its provider");
  return model;
}

/** A function that links to a page of this deployment. */
export function useLink(): (page: Page, argument?: string) => string {
  const { route } = useModel();
  return (page, argument = "") => linkTo(page, route.draft, argument);
}

/** Who is behind an address, as far as it was looked at. */
export function useAccount(address: Hex): Account | undefined {
  return useModel().loaded.accounts.get(address);
}

/**
 * The chain's time now, in seconds since 1970: the block's, and what has passed since, but never less than this machine's clock. A chain without new
 * blocks stands still by its last block alone; the next block will not.
 */
export function chainNow({ suite, readAt }: Loaded): number {
  const clock = Date.now();
  return Math.max(suite.block.timestamp + (clock - readAt) / 1000, clock / 1000);
}

/** {@link chainNow}, renewed every second. */
export function useNow(): number {
  const { loaded } = useModel();
  const [now, setNow] = useState(() => chainNow(loaded));
  useEffect(() => {
    setNow(chainNow(loaded));
    const timer = setInterval(() => setNow(chainNow(loaded)), 1000);
    return () => clearInterval(timer);
  }, [loaded]);
  return now;
}
