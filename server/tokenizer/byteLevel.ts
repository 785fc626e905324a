/** Byte-level BPE (GPT-2, Llama 3, Qwen, GLM-4, SmolLM): token texts in an alphabet of bytes, and merges in the order they were learned. */
import { LongviewError } from '../errors';
import type { Rank } from './types';

/** GPT-2's alphabet: a printable character for each byte. */
function byteOfCharacter(): Map<string, number> {
  const bytes = new Map<string, number>();
  let next = 256;
  for (let byte = 0; byte < 256; byte++) {
    const printable = (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
    bytes.set(String.fromCodePoint(printable ? byte : next++), byte);
  }
  return bytes;
}

const alphabet = byteOfCharacter();

/** The bytes that a token's text in GPT-2's alphabet stands for; undefined when a character is not of it. */
export function bytesOf(text: string): Uint8Array | undefined {
  const bytes: number[] = [];
  for (const character of text) {
    const byte = alphabet.get(character);
    if (byte === undefined) return undefined;
    bytes.push(byte);
  }
  return Uint8Array.from(bytes);
}

/** How a text is prepared: not at all, or (Qwen) by Unicode NFC. */
export const asItIs = (text: string) => [text];
export const toNfc = (text: string) => [text.normalize('NFC')];

/**
 * tiktoken merges by rank, so ranks must be in the order in which pairs were learned. Ids often are not. `merges`: pairs of token
 * texts, "a b". A byte that no token has (SmolLM's vocabulary lacks some control characters) has no id: Hugging Face's tokenizers
 * leave it out too. Throws LongviewError `file_corrupt`.
 */
export function byteLevelRanks(
  tokens: readonly Uint8Array[],
  special: ReadonlyMap<string, number>,
  merges: readonly string[],
): Rank[] {
  const idOf = new Map<string, number>();
  const key = (bytes: Uint8Array) => Buffer.from(bytes).toString('latin1');
  const specialIds = new Set(special.values());
  tokens.forEach((bytes, id) => {
    if (!specialIds.has(id) && !idOf.has(key(bytes))) idOf.set(key(bytes), id);
  });
  const ranks: Rank[] = [];
  for (let byte = 0; byte < 256; byte++) {
    const id = idOf.get(String.fromCharCode(byte));
    // tiktoken ends with a trap at a byte that it does not know, and is no good from then on.
    ranks.push({ bytes: Uint8Array.of(byte), ids: id === undefined ? [] : [id] });
    idOf.delete(String.fromCharCode(byte));
  }
  const damaged = (what: string) => new LongviewError('file_corrupt', `The model file is damaged: ${what}.`);
  for (const merge of merges) {
    const space = merge.indexOf(' ', 1);
    const whole = bytesOf(merge.slice(0, space) + merge.slice(space + 1));
    if (space < 1 || !whole) throw damaged('a merge of its tokenizer is no pair');
    const id = idOf.get(key(whole));
    // Two ways to the same token: the first learned counts.
    if (id === undefined) continue;
    idOf.delete(key(whole));
    ranks.push({ bytes: whole, ids: [id] });
  }
  return ranks;
}
