import { createContext } from "preact";
import { useContext, useEffect, useState } from "preact/hooks";
import type { Hex } from "../../../src/core/bytes.ts";
import type { Account } from "../data/accounts.ts";
import type { Loaded, Standing } from "../data/load.ts";
import { linkTo, type Page, type Route } from "../route.ts";

/** What pages see. */
export interface Model {
  /** What stands, as far as it was read. */
  readonly standing: Standing;
  /** Everything, once it was read; before that only the page of a service has something to show. */
  readonly loaded: Loaded | undefined;
  /** Whether what was not read yet is being read; false where that failed. */
  readonly reading: boolean;
  readonly route: Route;
}

export const ModelContext = createContext<Model | undefined>(undefined);

/** The model, below the provider. */
export function useModel(): Model {
  const model = useContext(ModelContext);
  if (model === undefined) throw new Error("no model: a page stands outside of its provider");
  return model;
}

/** Everything, for pages that are shown once it was read. */
export function useLoaded(): Loaded {
  const { loaded } = useModel();
  if (loaded === undefined) throw new Error("a page is shown before everything was read");
  return loaded;
}

/** A function that links to a page of this deployment. */
export function useLink(): (page: Page, argument?: string) => string {
  const { route } = useModel();
  return (page, argument = "") => linkTo(page, route.draft, argument);
}

/** Who is behind an address, as far as it was looked at. */
export function useAccount(address: Hex): Account | undefined {
  return useModel().standing.accounts.get(address);
}

/**
 * The chain's time now, in seconds since 1970: the block's, and what has passed since, but never less than this machine's clock. A chain without new
 * blocks stands still by its last block alone; the next block will not.
 */
export function chainNow({ block, readAt }: Standing): number {
  const clock = Date.now();
  return Math.max(block.timestamp + (clock - readAt) / 1000, clock / 1000);
}

/** {@link chainNow}, renewed every second. */
export function useNow(): number {
  const { standing } = useModel();
  const [now, setNow] = useState(() => chainNow(standing));
  useEffect(() => {
    setNow(chainNow(standing));
    const timer = setInterval(() => setNow(chainNow(standing)), 1000);
    return () => clearInterval(timer);
  }, [standing]);
  return now;
}
