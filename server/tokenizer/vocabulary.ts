/** A byte-level BPE vocabulary, read from a model's GGUF metadata. Hostile input: everything is checked. */
import type { ModelMetadata } from '../engine/engine';
import { LongviewError } from '../errors';

export interface Vocabulary {
  /** Bytes of each token by id; special tokens keep their text as UTF-8. */
  tokens: Uint8Array[];
  /** Text to id of control and user-defined tokens: never produced by plain text. */
  special: ReadonlyMap<string, number>;
  /** Regular expression that splits text before merging. */
  pattern: string;
  /** Pairs in the order they were learned, as token texts: "a b". */
  merges: string[];
  /** Text is brought to Unicode NFC first (Qwen). */
  normalize: boolean;
  stopTokens: number[];
  bosToken?: number;
  chatTemplate?: string;
}

const contractions = `(?i:'s|'t|'re|'ve|'m|'ll|'d)`;
const gpt2 = `'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+`;
const llama3 = `${contractions}|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+`;
const qwen2 = llama3.replace('\\p{N}{1,3}', '\\p{N}');
// Digits stand alone, and a space before one is not taken along: gpt2's pattern after an isolating pass over digits.
const smollm = `'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+|\\s+(?=\\p{N})|\\s+(?!\\S)|\\s+`;
// Words begin with a capital and take their contraction along; capitals alone are words too.
const capitals = `[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]`;
const smalls = `[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]`;
const word = `[^\\r\\n\\p{L}\\p{N}]?${capitals}`;
const o200k = `${word}*${smalls}+${contractions}?|${word}+${smalls}*${contractions}?|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+`;

/** By `tokenizer.ggml.pre`. */
export const patterns: Readonly<Record<string, string>> = {
  default: gpt2,
  'gpt-2': gpt2,
  'llama-bpe': llama3,
  llama3,
  'llama-v3': llama3,
  'chatglm-bpe': llama3,
  glm4: llama3,
  'gpt-4o': o200k,
  qwen2,
  smollm,
  starcoder: smollm,
};
export const patternNames = Object.keys(patterns);

/** Texts of tokens that end a turn: models name only some of theirs in their settings. */
export const endTexts: readonly string[] = [
  '<|im_end|>',
  '<|eot_id|>',
  '<|end|>',
  '<|endoftext|>',
  '<|end_of_text|>',
  '<|user|>',
  '<|observation|>',
];

/** `which`: the tokenizer, as the beginning of a sentence. */
export const unsupportedTokenizer = (which: string) =>
  new LongviewError(
    'unsupported_tokenizer',
    `${which} is not one that Longview has. It has byte-level BPE as in GPT-2, Llama 3, Qwen 2, GLM-4, Phi-4 and SmolLM, and no SentencePiece (Llama 2, Phi-3, Yi).`,
  );

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

function strings(metadata: ModelMetadata, key: string): string[] {
  const value = metadata.values[key];
  if (!Array.isArray(value) || !value.every((item) => typeof item === 'string'))
    throw new LongviewError('file_corrupt', `The model file is damaged: ${key} is no list of texts.`);
  return value;
}

/** Throws LongviewError `unsupported_tokenizer` (named) or `file_corrupt`. */
export function vocabularyFromGguf(metadata: ModelMetadata): Vocabulary {
  const model = metadata.values['tokenizer.ggml.model'];
  const pre = metadata.values['tokenizer.ggml.pre'] ?? 'default';
  const pattern = typeof pre === 'string' && Object.hasOwn(patterns, pre) ? patterns[pre] : undefined;
  if (model !== 'gpt2' || !pattern)
    throw unsupportedTokenizer(`The model's tokenizer (${String(model)}, ${String(pre)})`);
  const texts = strings(metadata, 'tokenizer.ggml.tokens');
  const merges = strings(metadata, 'tokenizer.ggml.merges');
  const types = metadata.values['tokenizer.ggml.token_type'];
  const special = new Map<string, number>();
  const tokens = texts.map((text, id) => {
    const type = Array.isArray(types) ? types[id] : 1;
    const bytes = type === 3 || type === 4 ? undefined : bytesOf(text);
    if (bytes) return bytes;
    special.set(text, id);
    return new TextEncoder().encode(text);
  });
  const id = (key: string): number | undefined => {
    const value = metadata.values[`tokenizer.ggml.${key}`];
    return typeof value === 'number' && value >= 0 && value < tokens.length ? value : undefined;
  };
  const ends = endTexts.map((text) => special.get(text));
  const stops = [id('eos_token_id'), id('eot_token_id'), ...ends];
  const template = metadata.values['tokenizer.chat_template'];
  return {
    tokens,
    special,
    pattern,
    merges,
    normalize: pre === 'qwen2',
    stopTokens: [...new Set(stops.filter((stop) => stop !== undefined))],
    bosToken: id('bos_token_id'),
    chatTemplate: typeof template === 'string' ? template : undefined,
  };
}
