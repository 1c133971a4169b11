/*
 * What a wallet, or any program that sends a user's data to a confidential VM, should ask first: who can change what runs there, and is that proven?
 *
 *   node examples/wallet-check.ts RPC-URL REGISTRY SERVICE [IMAGE]
 *
 * IMAGE is the text form of the image that the machine proved to run (`keystead measure` prints it). Exits 0 if it may have the service's keys and the
 * history is proven, 1 if not, 2 if that could not be checked.
 */
import { type Client, connect, type Hex, isKeysteadError, printable } from "keystead";
import { auditService, imageStatus, type ServiceAudit, viewService } from "keystead/audit";
import { encodeImage, imageId, parseImage } from "keystead/images";

const [url, registry, serviceId, imageText] = process.argv.slice(2);
if (url === undefined || registry === undefined || serviceId === undefined) {
  console.error("usage: node wallet-check.ts RPC-URL REGISTRY SERVICE [IMAGE]");
  process.exit(2);
}

try {
  const client: Client = await connect(url);
  const audit = await auditService(client, registry as Hex, serviceId as Hex);
  process.exitCode = report(audit, imageText);
} catch (error) {
  if (!isKeysteadError(error)) throw error;
  console.error(`could not check: ${error.code}: ${error.message}\n${error.remedy}`);
  process.exitCode = 2;
}

function report({ verdict, state, faults, reasons, block }: ServiceAudit, text: string | undefined): 0 | 1 | 2 {
  if (verdict !== "proven" || state === undefined) {
    for (const { code, message } of [...faults, ...reasons]) console.log(`${verdict}: ${code}: ${message}`);
    return verdict === "broken" ? 1 : 2;
  }
  const now = block.timestamp;
  const { upgradeable, admin, noticePeriod } = viewService(state, now);
  console.log(`Proven at block ${block.number}: ${state.sequence} events, none missing.`);
  console.log(upgradeable ? `${admin} can add images, ${noticePeriod} s ahead.` : "Nobody can ever change what runs.");
  for (const image of state.images.values()) {
    console.log(`${imageStatus(image, now).padEnd(9)}${image.imageId} ${printable(image.description, 60)}`);
  }
  if (text === undefined) return 0;
  const listed = state.images.get(imageId(encodeImage(parseImage(text, "service"))));
  const status = listed === undefined ? "unknown" : imageStatus(listed, now);
  console.log(`The image that runs is ${status}.`);
  return status === "active" || status === "retiring" ? 0 : 1;
}
