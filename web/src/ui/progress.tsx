import { type Progress, STEPS } from "../data/load.ts";

/** How far reading and verifying has come. */
export function ProgressPanel({ progress }: { readonly progress: Progress | undefined }) {
  const at = progress?.step ?? 0;
  return (
    <>
      <h1>Reading and verifying</h1>
      <progress max={STEPS.length} value={at + 0.5} aria-label="Verification" />
      <ol class="steps">
        {STEPS.map((step, index) => (
          <li
            key={step}
            class={index < at ? "done" : index === at ? "current" : "todo"}
            aria-current={index === at ? "step" : undefined}
          >
            <span class="mark" aria-hidden="true">
              {index < at ? "✓" : index === at ? "›" : "·"}
            </span>
            <span>
              {step}
              {index === at && progress !== undefined && progress.detail !== "" ? (
                <span class="muted"> ({progress.detail})</span>
              ) : null}
            </span>
          </li>
        ))}
      </ol>
      <p class="muted">{(progress?.calls ?? 0).toLocaleString("en")} calls to the endpoint so far.</p>
    </>
  );
}
