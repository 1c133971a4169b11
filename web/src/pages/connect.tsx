import { useState } from "preact/hooks";
import { decodeUtf8 } from "../../../src/core/bytes.ts";
import type { KeysteadError } from "../../../src/core/errors.ts";
import { toError } from "../data/load.ts";
import { linkTo } from "../route.ts";
import { checkDraft, type Draft, draftFromRecord, type Field } from "../settings.ts";
import { ErrorBox } from "../ui/bits.tsx";
import { Drop } from "../ui/drop.tsx";

/** A deployment's record is a few kilobytes. */
const RECORD_LIMIT = 1024 * 1024;

const LABELS: Readonly<Record<Field, readonly [label: string, hint: string, placeholder: string]>> = {
  rpc: ["RPC endpoint", "Any node of the chain. With eth_getProof, histories can be proven.", "https://rpc.example"],
  witness: ["Second endpoint (optional)", "Of another operator: it must have the same block.", "https://rpc.example"],
  registry: ["Registry", "The proxy's address.", "0x…"],
  policy: ["Policy", "The proxy's address.", "0x…"],
  timelock: ["Timelock (optional)", "Left empty: whoever governs the policy.", "0x…"],
  from: ["From block (optional)", "The block of the deployment. Left empty: 0, which takes long on a long chain.", "0"],
  chain: ["Chain id (optional)", "The chain that must answer.", "1"],
};

/** Which deployment to look at: a form, or a deployment's record dropped on it. */
export function ConnectPage({ draft: given, attempted }: { readonly draft: Draft; readonly attempted: boolean }) {
  const [draft, setDraft] = useState(given);
  const [checked, setChecked] = useState(attempted);
  const [problem, setProblem] = useState<KeysteadError | undefined>();
  const [taken, setTaken] = useState(false);
  const { settings, errors } = checkDraft(draft);
  const submit = () => {
    setChecked(true);
    if (settings !== undefined) window.location.hash = linkTo("overview", draft);
  };
  const readRecord = (bytes: Uint8Array) => {
    try {
      setDraft(draftFromRecord(decodeUtf8(bytes, "deployment"), draft));
      setProblem(undefined);
      setTaken(true);
    } catch (error) {
      setProblem(toError(error));
    }
  };
  return (
    <>
      <h1>Which deployment?</h1>
      <p class="note">
        Histories are fetched from the endpoint that you name and verified in this page. It asks nobody else, and keeps
        what you type in the address bar alone, after the #: browsers send that part to no server.
      </p>
      <Drop
        label="Drop or choose a deployment record (JSON)"
        limit={RECORD_LIMIT}
        onFile={readRecord}
        onError={setProblem}
      />
      {problem === undefined ? null : <ErrorBox error={problem} />}
      {taken ? <p role="status">The record was read. Give an endpoint of its chain.</p> : null}
      <p>
        To verify and sign a proposal no endpoint is needed: <a href="#/sign">sign a proposal</a>.
      </p>
      <form
        class="connect"
        noValidate
        onSubmit={(event) => {
          event.preventDefault();
          submit();
        }}
      >
        {(Object.keys(LABELS) as Field[]).map((field) => {
          const [label, hint, placeholder] = LABELS[field];
          const error = checked ? errors[field] : undefined;
          return (
            <label key={field} class={error === undefined ? "field" : "field wrong"}>
              <span>{label}</span>
              <input
                name={field}
                value={draft[field]}
                placeholder={placeholder}
                spellcheck={false}
                autocomplete="off"
                aria-invalid={error !== undefined}
                aria-describedby={`${field}-hint`}
                onInput={(event) => setDraft({ ...draft, [field]: event.currentTarget.value.trim() })}
              />
              <small id={`${field}-hint`}>{error === undefined ? hint : `${error.message}. ${error.remedy}`}</small>
            </label>
          );
        })}
        <div class="actions">
          <button type="submit" class="button primary">
            Read and verify
          </button>
        </div>
      </form>
    </>
  );
}
