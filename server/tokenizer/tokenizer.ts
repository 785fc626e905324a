/** types.ts on npm's tiktoken. */
import { Tiktoken } from 'tiktoken';
import { LongviewError } from '../errors';
import type { StreamDecoder, Tokenizer } from './types';
import { bytesOf, type Vocabulary } from './vocabulary';

/**
 * In place of the id of a byte that no token has: SmolLM's vocabulary lacks some control characters. Hugging Face's tokenizers
 * leave them out too.
 */
const unknown = -1;

/**
 * tiktoken merges by rank, so ranks must be in the order in which pairs were learned. Ids often are not: ranks are made up
 * here (the 256 bytes, then the merges in order) and mapped back to ids.
 */
function rankTable(vocabulary: Vocabulary): { bytes: Uint8Array[]; ids: Int32Array } {
  const idOf = new Map<string, number>();
  const key = (bytes: Uint8Array) => Buffer.from(bytes).toString('latin1');
  const specialIds = new Set(vocabulary.special.values());
  vocabulary.tokens.forEach((bytes, id) => {
    if (!specialIds.has(id) && !idOf.has(key(bytes))) idOf.set(key(bytes), id);
  });
  const bytes: Uint8Array[] = [];
  const ids: number[] = [];
  const add = (token: Uint8Array, what: string) => {
    const id = idOf.get(key(token));
    if (id === undefined)
      throw new LongviewError('file_corrupt', `The model file is damaged: its vocabulary lacks ${what}.`);
    idOf.delete(key(token));
    bytes.push(token);
    ids.push(id);
  };
  for (let byte = 0; byte < 256; byte++) {
    if (idOf.has(String.fromCharCode(byte))) add(Uint8Array.of(byte), `byte ${byte}`);
    else {
      // tiktoken ends with a trap at a byte that it does not know, and is no good from then on.
      bytes.push(Uint8Array.of(byte));
      ids.push(unknown);
    }
  }
  for (const merge of vocabulary.merges) {
    const space = merge.indexOf(' ', 1);
    const whole = bytesOf(merge.slice(0, space) + merge.slice(space + 1));
    if (space < 1 || !whole)
      throw new LongviewError(
        'file_corrupt',
        'The model file is damaged: a merge of its tokenizer is no pair.',
      );
    // Two ways to the same token: the first learned counts.
    if (idOf.has(key(whole))) add(whole, `the merge ${JSON.stringify(merge)}`);
  }
  return { bytes, ids: Int32Array.from(ids) };
}

/** Parts of a text: special tokens as their ids, and what stands between them. Of several that begin alike, the longest. */
function* splitSpecials(text: string, special: ReadonlyMap<string, number>): Generator<string | number> {
  const lengths = [...new Set([...special.keys()].map((key) => key.length))].sort((a, b) => b - a);
  let start = 0;
  for (let at = 0; at < text.length;) {
    const length = lengths.find((candidate) => special.has(text.substring(at, at + candidate)));
    if (length === undefined) {
      at++;
      continue;
    }
    yield text.slice(start, at);
    yield special.get(text.substring(at, at + length))!;
    start = at += length;
  }
  yield text.slice(start);
}

class Decoder implements StreamDecoder {
  private readonly utf8 = new TextDecoder('utf-8', { ignoreBOM: true });
  constructor(private readonly tokens: readonly Uint8Array[]) {}
  push(token: number): string {
    return this.utf8.decode(this.tokens[token] ?? new Uint8Array(), { stream: true });
  }
  end(): string {
    return this.utf8.decode();
  }
}

/** Builds the tokenizer of a vocabulary. Takes about a third of a second for 50,000 tokens. */
export function createTokenizer(vocabulary: Vocabulary): Tokenizer {
  const { bytes, ids } = rankTable(vocabulary);
  // tiktoken's own format: "! first-rank token token ...", base64.
  const table = `! 0 ${bytes.map((token) => Buffer.from(token).toString('base64')).join(' ')}`;
  // Special tokens are found here: there they are one pattern, which takes seconds to build where there are thousands.
  const engine = new Tiktoken(table, {}, vocabulary.pattern);
  // An empty one would be found everywhere, without an end.
  const special = new Map([...vocabulary.special].filter(([text]) => text !== ''));
  const specialTexts = new Map([...special].map(([text, id]) => [id, text]));
  const encode = (text: string) => {
    const ranks = engine.encode(vocabulary.normalize ? text.normalize('NFC') : text, [], []);
    return Int32Array.from(ranks, (rank) => ids[rank] ?? 0).filter((id) => id !== unknown);
  };
  return {
    vocabularySize: vocabulary.tokens.length,
    stopTokens: vocabulary.stopTokens,
    bosToken: vocabulary.bosToken,
    chatTemplate: vocabulary.chatTemplate,
    encode,
    encodeWithSpecials: (text) =>
      Int32Array.from(
        [...splitSpecials(text, special)].flatMap((part) =>
          typeof part === 'number' ? [part] : [...encode(part)],
        ),
      ),
    decode(tokens) {
      const decoder = new Decoder(vocabulary.tokens);
      return Array.from(tokens, (token) => decoder.push(token)).join('') + decoder.end();
    },
    decoder: () => new Decoder(vocabulary.tokens),
    specialText: (id) => specialTexts.get(id),
    dispose: () => engine.free(),
  };
}
