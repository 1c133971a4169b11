import { useEffect, useRef, useState } from "preact/hooks";
import { type Deployment, parseDeployment } from "../../../src/chain/deployment.ts";
import type { KeysteadError } from "../../../src/core/errors.ts";
import {
  deviceLines,
  type Names,
  namesOf,
  type Operation,
  type PlannedTransaction,
  parseAddressBook,
  placeFiles,
  planAt,
  requireSignable,
  type SignatureFile,
  type SignerCheck,
  screenRows,
  storyOf,
  takeWalletSignature,
  typedDataOf,
  type Verification,
  verifyProposal,
} from "../../../src/governance/browser.ts";
import { toError } from "../data/load.ts";
import { type Connected, connectWallet, signTyped, type Wallet, watchWallets } from "../data/wallets.ts";
import { Badge, Copy, ErrorBox, Section, Untrusted } from "../ui/bits.tsx";
import { Drop } from "../ui/drop.tsx";
import { FolderInput, type Given } from "../ui/folder.tsx";

const RECORD_LIMIT = 1024 * 1024;

/** Opens a proposal's folder, verifies it here, asks a wallet for a signature, and gives the signature's file. */
export function SignPage() {
  const [given, setGiven] = useState<Given | undefined>();
  const [deployment, setDeployment] = useState<Deployment | undefined>();
  const [book, setBook] = useState<string | undefined>();
  const [error, setError] = useState<KeysteadError | undefined>();
  const fail = (cause: unknown) => setError(toError(cause));
  const take = (act: () => void) => {
    setError(undefined);
    try {
      act();
    } catch (cause) {
      fail(cause);
    }
  };
  const opened = useOpened(given, deployment, book, fail);
  return (
    <>
      <h1>Sign a proposal</h1>
      <p class="note">
        Nothing leaves this page but what you confirm in your wallet. The folder is verified here by the code that{" "}
        <code>keystead verify</code> runs.
      </p>
      <FolderInput onFiles={(files) => take(() => setGiven(files))} onError={fail} />
      <div class="actions">
        <Drop
          label={deployment === undefined ? "The deployment's record (recommended)" : `Record: ${deployment.network}`}
          limit={RECORD_LIMIT}
          onFile={(bytes) => take(() => setDeployment(parseDeployment(new TextDecoder().decode(bytes))))}
          onError={fail}
        />
        <Drop
          label={book === undefined ? "An address book (optional)" : "Address book: read"}
          limit={RECORD_LIMIT}
          onFile={(bytes) => take(() => setBook(new TextDecoder().decode(bytes)))}
          onError={fail}
        />
      </div>
      <div aria-live="polite">{error === undefined ? null : <ErrorBox error={error} />}</div>
      {opened === undefined ? null : <Opened key={opened.id} {...opened} deployment={deployment} />}
    </>
  );
}

interface OpenedProposal {
  readonly id: string;
  readonly found: Verification;
  readonly names: Names;
}

/** Verifies what was opened, again whenever the record or the address book changes. */
function useOpened(
  given: Given | undefined,
  deployment: Deployment | undefined,
  book: string | undefined,
  fail: (cause: unknown) => void,
): OpenedProposal | undefined {
  const [opened, setOpened] = useState<OpenedProposal | undefined>();
  const count = useRef(0);
  useEffect(() => {
    setOpened(undefined);
    if (given === undefined) return;
    try {
      const { files, folder } = placeFiles(given);
      const found = verifyProposal(files, {
        ...(folder === undefined ? {} : { folder }),
        ...(deployment === undefined ? {} : { deployment }),
      });
      const chainId = found.operation?.chainId ?? 0n;
      const names = namesOf({ deployment, book: book === undefined ? undefined : parseAddressBook(book, chainId) });
      count.current += 1;
      setOpened({ id: `${count.current}`, found, names });
    } catch (cause) {
      fail(cause);
    }
  }, [given, deployment, book]);
  return opened;
}

function Opened({ found, names, deployment }: OpenedProposal & { readonly deployment: Deployment | undefined }) {
  const { operation, ok, differences, warnings, unchecked } = found;
  const blocked = !ok || operation === undefined || warnings.length > 0;
  return (
    <div class="results signing">
      <p class="lead" role="status">
        {!ok ? (
          <Badge tone="bad">Do not sign: the folder is not what its operation gives</Badge>
        ) : warnings.length > 0 ? (
          <Badge tone="warn">Not signed here: part of it is unsafe or could not be read</Badge>
        ) : (
          <Badge tone="ok">Derived as proposed</Badge>
        )}
      </p>
      {differences.length + warnings.length === 0 ? null : (
        <ul class="plain">
          {differences.slice(0, 20).map(({ field, message }) => (
            <li key={`${field}${message}`}>
              <Untrusted text={`${field}: ${message}`} />
            </li>
          ))}
          {warnings.slice(0, 20).map(({ message }) => (
            <li key={message}>
              <Untrusted text={message} />
            </li>
          ))}
        </ul>
      )}
      {operation === undefined ? null : (
        <>
          <h2>
            <Untrusted text={`${operation.id}: ${operation.title}`} />
          </h2>
          <Signing {...{ operation, found, names, deployment, blocked }} />
        </>
      )}
      <Section id="unchecked" title="Not checked here">
        <ul>
          {[...unchecked, "what it changes on a copy of the chain: keystead simulate"].map((item) => (
            <li key={item}>
              <Untrusted text={item} />
            </li>
          ))}
        </ul>
      </Section>
    </div>
  );
}

interface SigningProps {
  readonly operation: Operation;
  readonly found: Verification;
  readonly names: Names;
  readonly deployment: Deployment | undefined;
  readonly blocked: boolean;
}

function Signing({ operation, found, names, deployment, blocked }: SigningProps) {
  const steps = found.transactions;
  const [index, setIndex] = useState(0);
  const [nonce, setNonce] = useState("");
  const [connected, setConnected] = useState<Connected | undefined>();
  const [check, setCheck] = useState<SignerCheck | undefined>();
  const [error, setError] = useState<KeysteadError | undefined>();
  const [made, setMade] = useState<SignatureFile | undefined>();
  const [busy, setBusy] = useState(false);
  const step = steps[index];
  if (step === undefined) return <p>It has no step to sign.</p>;
  const planned = /^\d{1,15}$/.test(nonce) ? planAt(step, operation.chainId, BigInt(nonce)) : step;
  const choose = (act: () => void) => {
    act();
    setCheck(undefined);
    setConnected(undefined);
    setMade(undefined);
    setError(undefined);
  };
  const run = async (act: () => Promise<void>) => {
    setBusy(true);
    setError(undefined);
    try {
      await act();
    } catch (cause) {
      setError(toError(cause));
    } finally {
      setBusy(false);
    }
  };
  const onConnect = (wallet: Wallet) =>
    run(async () => {
      setMade(undefined);
      const one = await connectWallet(wallet, operation.chainId);
      setCheck(await requireSignable(one.client, planned, null));
      setConnected(one);
    });
  const onSign = (one: Connected) =>
    run(async () => {
      const signature = await signTyped(one, typedDataOf(operation.chainId, planned, null));
      setMade(takeWalletSignature(operation, planned, one.account, signature));
    });
  const owner = connected !== undefined && isOwner(check, connected.account);
  return (
    <>
      <div class="steps">
        <label class="field">
          <span>Step</span>
          <select value={index} onChange={(event) => choose(() => setIndex(Number(event.currentTarget.value)))}>
            {steps.map(({ name, safe, step: does }, i) => (
              <option key={`${name}${safe.address}`} value={i}>
                {does}, by {names.get(safe.address) ?? safe.address}
              </option>
            ))}
          </select>
        </label>
        <label class="field">
          <span>Nonce of the Safe</span>
          <input
            type="text"
            class="nonce"
            inputMode="numeric"
            placeholder={`${step.transaction.nonce}, as proposed`}
            value={nonce}
            onInput={(event) => choose(() => setNonce(event.currentTarget.value.trim()))}
          />
        </label>
      </div>
      <Screen {...{ operation, planned, found, names, deployment, connected, check }} />
      {blocked ? (
        <p class="panel bad">It cannot be signed here. Read it with keystead verify, and ask whoever proposed it.</p>
      ) : (
        <Wallets busy={busy} connected={connected} onConnect={onConnect} />
      )}
      {blocked || connected === undefined || made !== undefined ? null : owner ? (
        <p class="actions">
          <button type="button" class="button primary" disabled={busy} onClick={() => onSign(connected)}>
            {busy ? "Look at your wallet" : `Yes, sign ${planned.name}`}
          </button>
        </p>
      ) : (
        <p class="panel bad" role="alert">
          <Badge tone="bad">Not an owner</Badge> The wallet's account may not sign for this Safe. Choose another account
          in the wallet, and connect again.
        </p>
      )}
      <div aria-live="polite">
        {error === undefined ? null : <ErrorBox error={error} />}
        {made === undefined ? null : <Made file={made} />}
      </div>
    </>
  );
}

const isOwner = (check: SignerCheck | undefined, account: string): boolean =>
  check?.owners.some((owner) => owner.toLowerCase() === account.toLowerCase()) ?? false;

function Screen(props: {
  readonly operation: Operation;
  readonly planned: PlannedTransaction;
  readonly found: Verification;
  readonly names: Names;
  readonly deployment: Deployment | undefined;
  readonly connected: Connected | undefined;
  readonly check: SignerCheck | undefined;
}) {
  const { operation, planned, found, names, deployment, connected, check } = props;
  const { safeTxHash } = planned.hashes;
  const signer = check?.owners.find((owner) => owner.toLowerCase() === connected?.account.toLowerCase());
  const signed = found.signatures.filter(
    (one) => one.recovered && one.safeTxHash === safeTxHash && one.through === null,
  );
  const recorded = [deployment?.safes.governance, deployment?.safes.guardian].find(
    (safe) => safe?.address === planned.safe.address,
  );
  const now = BigInt(check?.block.timestamp ?? Math.floor(Date.now() / 1000));
  const rows = screenRows({
    ...{ operation, planned, names, recorded: deployment !== undefined, through: null, warnings: [] },
    story: storyOf(operation, planned, names, now),
    as: {
      ...{ signer, owners: check?.owners ?? recorded?.owners, threshold: check?.safe.threshold ?? recorded?.threshold },
      source: check !== undefined ? "the chain" : recorded !== undefined ? "the record, as deployed" : undefined,
      signed: signed.map((one) => one.signer),
    },
  });
  const [compare = "", ...lines] = deviceLines(operation.chainId, planned, null);
  return (
    <>
      <dl class="facts screen">
        {rows.map(([label, ...texts], i) => (
          <div class="fact" key={`${label}${i}`}>
            <dt>{label === "" ? "and" : label}</dt>
            <dd>
              {texts.map((text) => (
                <p key={text}>
                  <Untrusted text={text} />
                </p>
              ))}
            </dd>
          </div>
        ))}
      </dl>
      <Section id="device" title="What the device shows" note={compare}>
        <dl class="facts">
          {lines.map((line) => {
            const [name = "", value = ""] = line.split(/\s+/);
            return (
              <div class="fact" key={name}>
                <dt>{name}</dt>
                <dd>
                  <code class="whole">{value}</code> <Copy text={value} what={`${name} hash`} />
                </dd>
              </div>
            );
          })}
        </dl>
      </Section>
    </>
  );
}

function Wallets({
  busy,
  connected,
  onConnect,
}: {
  readonly busy: boolean;
  readonly connected: Connected | undefined;
  readonly onConnect: (wallet: Wallet) => void;
}) {
  const [wallets, setWallets] = useState<readonly Wallet[]>([]);
  useEffect(() => watchWallets(setWallets), []);
  return (
    <Section
      id="wallets"
      title="Your wallet"
      note="A wallet's name is its own word. What it shows must be the hashes above."
    >
      {wallets.length === 0 ? (
        <p>No wallet announced itself. Open this page in a browser with a wallet, or use keystead sign.</p>
      ) : (
        <p class="actions">
          {wallets.map((wallet) => (
            <button
              type="button"
              class="button"
              key={wallet.id}
              disabled={busy}
              aria-pressed={connected?.wallet.id === wallet.id}
              onClick={() => onConnect(wallet)}
            >
              Connect <Untrusted text={wallet.name} limit={40} />
            </button>
          ))}
        </p>
      )}
      {connected === undefined ? null : (
        <p>
          Connected: <code class="whole">{connected.account}</code>
        </p>
      )}
    </Section>
  );
}

/** The signature's file, to be put into the folder. */
function Made({ file }: { readonly file: SignatureFile }) {
  const [url, setUrl] = useState<string | undefined>();
  useEffect(() => {
    const made = URL.createObjectURL(new Blob([file.text], { type: "application/json" }));
    setUrl(made);
    return () => URL.revokeObjectURL(made);
  }, [file]);
  return (
    <div class="panel ok">
      <p class="lead">
        <Badge tone="ok">Signed</Badge> The signature was checked: it is yours, of exactly these hashes.
      </p>
      <p>
        Put the file into the proposal's folder, at <code class="whole">{file.path}</code>{" "}
        <Copy text={file.path} what="the file's place" />, and commit it.
      </p>
      <p class="actions">
        {url === undefined ? null : (
          <a class="button primary" href={url} download={file.path.split("/").at(-1) ?? "signature.json"}>
            Download the signature
          </a>
        )}
      </p>
    </div>
  );
}
