import type { ReportModel } from '../../html/model.js';
import { makeVisible } from './text.js';

/** Id of the element with the data: base64 of gzip of JSON. */
const DATA_ID = 'plugpull-data';
/** Version of the model that this viewer can show. */
const FORMAT = 1;

/**
 * Reads the data of this page.
 * @throws Error with a sentence that says which step failed.
 */
export async function loadModel(): Promise<ReportModel> {
  const element = document.getElementById(DATA_ID);
  if (element === null) throw new Error('the file has no data: the report was not written completely');
  const packed = step('the data is not base64', () => decodeBase64(element.textContent.trim()));
  // Free the text: it is as large as the file.
  element.remove();
  const json = await unpack(packed).catch((error: unknown) => {
    throw new Error(`the data cannot be unpacked: ${describe(error)}`);
  });
  const model = step('the data is not JSON', () => JSON.parse(json) as ReportModel);
  if (model?.format !== FORMAT)
    throw new Error(`the data has format ${String(model?.format)}, and this report shows format ${FORMAT}`);
  return makeVisible(model);
}

/** Returns the message of an error, also of a value that is none. */
export function describe(error: unknown): string {
  return error instanceof Error && error.message !== '' ? error.message : String(error);
}

function step<T>(what: string, work: () => T): T {
  try {
    return work();
  } catch (error) {
    throw new Error(`${what}: ${describe(error)}`);
  }
}

function decodeBase64(text: string): Uint8Array<ArrayBuffer> {
  const binary = atob(text);
  const bytes = new Uint8Array(binary.length);
  for (let index = 0; index < binary.length; index++) bytes[index] = binary.charCodeAt(index);
  return bytes;
}

function unpack(packed: Uint8Array<ArrayBuffer>): Promise<string> {
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream('gzip'));
  return new Response(stream).text();
}
