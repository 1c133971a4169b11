import type { ComponentChildren } from "preact";
import { useContext, useState } from "preact/hooks";
import { plural } from "../format.ts";
import { Printing } from "./print.ts";

/** The first of a long list; as many again with each click; all of it on paper. */
export function More<T>({
  items,
  first,
  what,
  children,
}: {
  readonly items: readonly T[];
  /** How many are shown at first. */
  readonly first: number;
  /** What one that is not shown is called, e.g. `older event`. */
  readonly what: string;
  readonly children: (shown: readonly T[]) => ComponentChildren;
}) {
  const [wanted, setWanted] = useState(first);
  const shown = useContext(Printing) ? items : items.slice(0, wanted);
  const left = items.length - shown.length;
  const next = Math.min(wanted, left);
  return (
    <>
      {children(shown)}
      {left === 0 ? null : (
        <button type="button" class="button" onClick={() => setWanted(wanted + next)}>
          Show {next < left ? `${next.toLocaleString("en")} of ` : ""}
          {plural(left, what)}
        </button>
      )}
    </>
  );
}

/** Something folded away that is made only where it is looked at: a page may hold hundreds. On paper it is unfolded. */
export function Fold({ summary, children }: { readonly summary: string; readonly children: () => ComponentChildren }) {
  const [open, setOpen] = useState(false);
  const printing = useContext(Printing);
  return (
    <details onToggle={(event) => setOpen(event.currentTarget.open)}>
      <summary>{summary}</summary>
      {open || printing ? children() : null}
    </details>
  );
}
