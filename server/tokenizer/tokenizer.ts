/** types.ts on npm's tiktoken. */
import { Tiktoken } from 'tiktoken';
import type { StreamDecoder, Tokenizer, Vocabulary } from './types';

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
  private begun = false;
  constructor(private readonly vocabulary: Vocabulary) {}
  push(token: number): string {
    const bytes = this.vocabulary.tokens[token] ?? new Uint8Array();
    const skipped = !this.begun && this.vocabulary.firstSpace !== 'nowhere' && bytes[0] === 0x20;
    this.begun ||= bytes.length > 0;
    return this.utf8.decode(skipped ? bytes.subarray(1) : bytes, { stream: true });
  }
  end(): string {
    return this.utf8.decode();
  }
}

/** Builds the tokenizer of a vocabulary. Takes about a third of a second for 50,000 tokens. */
export function createTokenizer(vocabulary: Vocabulary): Tokenizer {
  const { tokens, ranks, firstSpace, swallowing } = vocabulary;
  // tiktoken's own format: "! first-rank token token ...", base64.
  const table = `! 0 ${ranks.map(({ bytes }) => Buffer.from(bytes).toString('base64')).join(' ')}`;
  // Special tokens are found here: there they are one pattern, which takes seconds to build where there are thousands.
  const engine = new Tiktoken(table, {}, vocabulary.pattern);
  // An empty one would be found everywhere, without an end.
  const special = new Map([...vocabulary.special].filter(([text]) => text !== ''));
  const specialTexts = new Map([...special].map(([text, id]) => [id, text]));
  const add = (ids: number[], text: string, spaced: boolean) => {
    for (const part of vocabulary.prepare(spaced && text !== '' ? ` ${text}` : text))
      for (const rank of engine.encode(part, [], [])) for (const id of ranks[rank]?.ids ?? []) ids.push(id);
  };
  return {
    vocabularySize: tokens.length,
    stopTokens: vocabulary.stopTokens,
    bosToken: vocabulary.bosToken,
    chatTemplate: vocabulary.chatTemplate,
    encode(text, behindSpecial = false) {
      const ids: number[] = [];
      add(ids, text, behindSpecial && firstSpace === 'behind-specials-too');
      return Int32Array.from(ids);
    },
    encodeWithSpecials(text) {
      const ids: number[] = [];
      const spaced = () =>
        firstSpace === 'behind-specials-too' || (firstSpace === 'text' && ids.length === 0);
      for (const part of splitSpecials(text, special)) {
        if (typeof part === 'number') ids.push(part);
        else add(ids, swallowing.has(ids.at(-1) ?? -1) ? part.trimStart() : part, spaced());
      }
      return Int32Array.from(ids);
    },
    decode(ids) {
      const decoder = new Decoder(vocabulary);
      return Array.from(ids, (id) => decoder.push(id)).join('') + decoder.end();
    },
    decoder: () => new Decoder(vocabulary),
    specialText: (id) => specialTexts.get(id),
    dispose: () => engine.free(),
  };
}
