/**
 * SentencePiece's BPE (Llama 2, Mistral, Phi-3, Yi, Gemma) by tiktoken's merges. There, text begins as characters, any two neighbours
 * whose text is a piece are merged, the best piece first, and a character that is in no piece stands as its bytes.
 */
import type { Rank, Vocabulary } from './types';

/** In place of a space. */
export const spaceMark = '\u2581';

/**
 * A word with the spaces before it; lines. Hardly a piece reaches from one into the next (Gemma has one), or its vocabulary is not one of
 * these. Those that do are left out: their texts are two tokens then.
 */
const pattern = `${spaceMark}*[^${spaceMark}\\n]+|${spaceMark}+|\\n+`;
const mostBeyond = 1e-5; // of all pieces
/** Characters of texts that are tokens wherever they stand, which one pattern finds: Gemma's have 2,000. */
const mostTaken = 20_000;

/** The byte that a piece like <0x0A> stands for. */
export function byteOf(piece: string): number | undefined {
  const [, digits] = /^<0x([0-9A-F]{2})>$/.exec(piece) ?? [];
  return digits === undefined ? undefined : Number.parseInt(digits, 16);
}

/**
 * Whether what Gemma's vocabulary defines beside its pieces is text, which is a token wherever it stands: runs of white space and HTML's
 * tags, but not what its makers keep for themselves.
 */
export const isGemmaText = (defined: string): boolean =>
  /^(?:[ \n\t\u2581]+|<\/?[a-z]+[1-6]?>)$/.test(defined) && defined !== '<mask>';

/**
 * `texts`: of all tokens by id, special ones by what they are called. `order`: ids of those that are merged, the best first, and of
 * characters and bytes. `taken`: texts that are a token wherever they stand, before anything is merged. Undefined where the pattern does
 * not fit.
 */
export function sentencePiece(
  texts: readonly string[],
  special: ReadonlyMap<string, number>,
  order: readonly number[],
  taken: ReadonlyMap<string, number> = new Map(),
): Pick<Vocabulary, 'tokens' | 'pattern' | 'ranks' | 'prepare'> | undefined {
  const fits = new RegExp(`^(?:${pattern})$`, 'u');
  const encoder = new TextEncoder();
  if ([...taken.keys()].join('').length > mostTaken) return undefined;
  const whole = new Map([...taken].map(([text, id]) => [text.replaceAll(' ', spaceMark), id]));
  const pieces = new Map(whole);
  let beyond = 0;
  const bytes = new Map<number, number>();
  for (const id of order) {
    const text = texts[id] ?? '';
    const byte = byteOf(text);
    if (byte !== undefined) bytes.set(byte, id);
    else if (special.get(text) !== id && text !== '' && !pieces.has(text)) {
      if (fits.test(text)) pieces.set(text, id);
      else beyond++;
    }
  }
  if (beyond > mostBeyond * texts.length) return undefined;
  const tokens = texts.map((text, id) => {
    const byte = byteOf(text);
    if (byte !== undefined) return Uint8Array.of(byte);
    return encoder.encode(special.get(text) === id ? text : text.replaceAll(spaceMark, ' '));
  });
  const neighbours = neighboursIn(pieces.keys());
  const takes = anyOf([...whole.keys()]);
  function* prepare(text: string): Generator<string> {
    const marked = text.replaceAll(' ', spaceMark);
    let start = 0;
    for (const { index, 0: found } of takes ? marked.matchAll(takes) : []) {
      if (index > start) yield* stretches(marked.slice(start, index), neighbours);
      yield found;
      start = index + found.length;
    }
    if (start < marked.length) yield* stretches(start > 0 ? marked.slice(start) : marked, neighbours);
  }
  return { tokens, pattern, ranks: ranksOf(pieces, bytes), prepare };
}

/** Finds each of them, the longest of those that begin at one place; undefined where there are none. */
function anyOf(texts: readonly string[]): RegExp | undefined {
  if (texts.length === 0) return undefined;
  const escaped = (text: string) =>
    [...text].map((character) => `\\u{${character.codePointAt(0)!.toString(16)}}`).join('');
  const longestFirst = [...texts].sort((a, b) => b.length - a.length);
  const beginnings = new Set(texts.map((text) => [...text][0]!));
  return new RegExp(
    `(?=[${escaped([...beginnings].join(''))}])(?:${longestFirst.map(escaped).join('|')})`,
    'gu',
  );
}

/** Characters that stand side by side in a piece: between others a text can be cut, and gives the same tokens. */
function neighboursIn(pieces: Iterable<string>): ReadonlySet<string> {
  const pairs = new Set<string>();
  for (const piece of pieces) {
    let former = '';
    for (const character of piece) {
      if (former !== '') pairs.add(former + character);
      former = character;
    }
  }
  return pairs;
}

/**
 * tiktoken's time grows with the square of what its pattern does not split, as a long line without a space. From `long` characters
 * on that is cut where it makes no difference, and in any case at `longest` (of spaces, a whole number of the longest piece).
 */
function* stretches(text: string, neighbours: ReadonlySet<string>): Generator<string> {
  const long = 400;
  const longest = 2048;
  let start = 0;
  for (const { index, 0: stretch } of text.matchAll(/[^\u2581\n]{401,}|\u2581{401,}/gu)) {
    let at = index;
    let length = 0;
    let former = '';
    for (const character of stretch) {
      if (length === longest || (length > long && !neighbours.has(former + character))) {
        yield text.slice(start, at);
        start = at;
        length = 0;
      }
      at += character.length;
      length++;
      former = character;
    }
  }
  yield text.slice(start);
}

function ranksOf(pieces: ReadonlyMap<string, number>, bytes: ReadonlyMap<number, number>): Rank[] {
  const encoder = new TextEncoder();
  const ranks: Rank[] = [];
  const added = new Set<string>();
  // Many characters begin alike.
  const add = (text: Uint8Array, id?: number) => {
    const key = Buffer.from(text).toString('latin1');
    if (added.has(key)) return;
    added.add(key);
    const ids = id === undefined ? [...text].flatMap((byte) => bytes.get(byte) ?? []) : [id];
    ranks.push({ bytes: text, ids });
  };
  for (let byte = 0; byte < 256; byte++)
    add(Uint8Array.of(byte), byte < 128 ? pieces.get(String.fromCharCode(byte)) : undefined);
  // tiktoken begins with bytes: before all else they become characters again, from the left.
  for (const character of new Set([...pieces.keys()].flatMap((text) => [...text]))) {
    const whole = encoder.encode(character);
    for (let length = 2; length < whole.length; length++) add(whole.subarray(0, length));
    add(whole, pieces.get(character));
  }
  for (const [text, id] of pieces) add(encoder.encode(text), id);
  return ranks;
}
