import { IMAGE_KINDS, type Image } from "../../../src/core/image.ts";
import type { Comparison } from "../data/check.ts";
import { KIND_NAMES } from "../data/images.ts";
import { Copy } from "./bits.tsx";

/** Hex in groups of eight digits, so that eyes can compare it. */
function groups(hex: string): string {
  return (hex.slice(2).match(/.{1,8}/g) ?? []).join(" ");
}

/**
 * An image's registers, every one of its kind: a register that it leaves out matches anything, and that is what is shown. With a comparison, how each one
 * compares with evidence.
 */
export function Registers({
  image,
  comparison,
  words = ["same", "differs"],
}: {
  readonly image: Image;
  readonly comparison?: Comparison | undefined;
  /** How a register that is the same is called, and one that differs. */
  readonly words?: readonly [same: string, differs: string];
}) {
  const spec = IMAGE_KINDS[image.kind];
  const stateOf = (name: string) => {
    if (comparison === undefined || image.registers[name] === undefined) return undefined;
    if (comparison.same.includes(name)) return "same";
    return comparison.differs.includes(name) ? "differs" : "not in the evidence";
  };
  const left = spec.registers.filter(({ name }) => image.registers[name] === undefined).map(({ name }) => name);
  return (
    <div class="registers">
      <p class="kind">{KIND_NAMES[image.kind]}</p>
      <dl>
        {spec.registers.map(({ name }) => {
          const value = image.registers[name];
          if (value === undefined) return null;
          const state = stateOf(name);
          return (
            <div key={name} class={state === undefined ? undefined : state === "same" ? "same" : "differs"}>
              <dt>{name}</dt>
              <dd>
                <code>{groups(value)}</code>
                {state === undefined ? null : (
                  <span class="state">{state === "same" ? words[0] : state === "differs" ? words[1] : state}</span>
                )}
              </dd>
              <dd>
                <Copy text={value.slice(2)} what={name} />
              </dd>
            </div>
          );
        })}
        {left.length === 0 ? null : (
          <div>
            <dt>*</dt>
            <dd class="anything">any value: {left.join(", ")}</dd>
          </div>
        )}
      </dl>
    </div>
  );
}
