/** A model's vocabulary, read from its GGUF metadata. Hostile input: everything is checked. */
import type { ModelMetadata } from '../engine/engine';
import { LongviewError } from '../errors';
import { asItIs, bytesOf, byteLevelRanks, toNfc } from './byteLevel';
import { isGemmaText, sentencePiece } from './sentencePiece';
import type { Vocabulary } from './types';

const contractions = `(?i:'s|'t|'re|'ve|'m|'ll|'d)`;
const gpt2 = `'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+`;
const llama3 = `${contractions}|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+`;
const qwen2 = llama3.replace('\\p{N}{1,3}', '\\p{N}');
// Marks (accents, vowel signs) belong to their word.
const qwen35 = qwen2
  .replace('?\\p{L}+', '?[\\p{L}\\p{M}]+')
  .replace('[^\\s\\p{L}\\p{N}]', '[^\\s\\p{L}\\p{M}\\p{N}]');
// Digits stand alone, and a space before one is not taken along: gpt2's pattern after an isolating pass over digits.
const smollm = `'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+|\\s+(?=\\p{N})|\\s+(?!\\S)|\\s+`;
// Words begin with a capital and take their contraction along; capitals alone are words too.
const capitals = `[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]`;
const smalls = `[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]`;
const word = `[^\\r\\n\\p{L}\\p{N}]?${capitals}`;
const o200k = `${word}*${smalls}+${contractions}?|${word}+${smalls}*${contractions}?|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+`;
const tekken = o200k.replaceAll(`${contractions}?`, '').replace('\\p{N}{1,3}', '\\p{N}');

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
  tekken,
  qwen2,
  'deepseek-r1-qwen': qwen2,
  qwen35,
  smollm,
  starcoder: smollm,
  refact: smollm,
  dbrx: llama3,
};
export const patternNames = Object.keys(patterns);

/** Texts of tokens that end a turn: models name only some of theirs in their settings. */
export const endTexts: readonly string[] = [
  '<|im_end|>',
  '<|eot_id|>',
  '<|eom_id|>',
  '<|end|>',
  '<|return|>',
  '<|call|>',
  '<|endoftext|>',
  '<|end_of_text|>',
  '<end_of_turn>',
  '<|user|>',
  '<|observation|>',
];

/** `which`: the tokenizer, as the beginning of a sentence. */
export const unsupportedTokenizer = (which: string) =>
  new LongviewError(
    'unsupported_tokenizer',
    `${which} is not one that Longview has. It has byte-level BPE as in GPT-2, Llama 3, Qwen 2, GLM-4, gpt-oss, Granite, Phi-4, Mistral 3 and SmolLM, and SentencePiece's BPE as in Llama 2, Mistral, Phi-3, Yi and Gemma.`,
  );

/** More than any model has; a file that is made up to have millions would take minutes, and all memory. */
const mostTexts = 1 << 20;

function strings(metadata: ModelMetadata, key: string): string[] {
  const value = metadata.values[key];
  if (!Array.isArray(value) || value.length > mostTexts || !value.every((item) => typeof item === 'string'))
    throw new LongviewError(
      'file_corrupt',
      `The model file is damaged: ${key} is no list of at most ${mostTexts} texts.`,
    );
  return value;
}

/** Files of before the key was there do not name their pattern: it is that of the tokenizers that such a model has. */
function unnamedPattern(architecture: unknown, texts: unknown): string {
  if (architecture === 'qwen2') return 'qwen2';
  const llama3 = Array.isArray(texts) && texts.includes('<|begin_of_text|>');
  return architecture === 'llama' && llama3 ? 'llama-bpe' : 'default';
}

type Text = Omit<Vocabulary, 'stopTokens' | 'bosToken' | 'chatTemplate'>;

/** What token_type calls a token; 1 is a normal one. */
const tokenTypes = { unknown: 2, control: 3, userDefined: 4 };

/** A GGUF file's types of tokens, by id. */
function typesOf(metadata: ModelMetadata): (id: number) => unknown {
  const types = metadata.values['tokenizer.ggml.token_type'];
  return (id) => (Array.isArray(types) ? (types as unknown[])[id] : 1);
}

function byteLevelText(metadata: ModelMetadata, pre: string): Text {
  const typeOf = typesOf(metadata);
  const special = new Map<string, number>();
  const tokens = strings(metadata, 'tokenizer.ggml.tokens').map((text, id) => {
    const isSpecial = typeOf(id) === tokenTypes.control || typeOf(id) === tokenTypes.userDefined;
    const bytes = isSpecial ? undefined : bytesOf(text);
    if (bytes) return bytes;
    special.set(text, id);
    return new TextEncoder().encode(text);
  });
  return {
    tokens,
    special,
    swallowing: new Set(),
    pattern: patterns[pre]!,
    ranks: byteLevelRanks(tokens, special, strings(metadata, 'tokenizer.ggml.merges')),
    prepare: pre === 'qwen2' || pre === 'qwen35' ? toNfc : asItIs,
    firstSpace: 'nowhere',
  };
}

function sentencePieceText(metadata: ModelMetadata): Text | undefined {
  const texts = strings(metadata, 'tokenizer.ggml.tokens');
  const scores = metadata.values['tokenizer.ggml.scores'];
  if (!Array.isArray(scores) || scores.length !== texts.length)
    throw new LongviewError(
      'file_corrupt',
      'The model file is damaged: tokenizer.ggml.scores is no list of a score for each token.',
    );
  const typeOf = typesOf(metadata);
  const isGemma = /^gemma/.test(String(metadata.values['general.architecture']));
  const isTaken = (id: number) => isGemma && typeOf(id) === tokenTypes.userDefined && isGemmaText(texts[id]!);
  // Yi's vocabulary defines both `-->`, a piece as others, and `<|im_end|>`, which some files have as a normal token.
  const isSpecial = (id: number) =>
    !isTaken(id) &&
    (typeOf(id) === tokenTypes.unknown ||
      typeOf(id) === tokenTypes.control ||
      /^<\|.*\|>$/s.test(texts[id]!) ||
      (typeOf(id) === tokenTypes.userDefined && /^[<[].*[>\]]$/s.test(texts[id]!)));
  const special = new Map(texts.map((text, id) => [text, id] as const).filter(([, id]) => isSpecial(id)));
  const score = (id: number) =>
    typeOf(id) === tokenTypes.userDefined ? Infinity : ((scores as number[])[id] ?? 0);
  const order = texts.map((_, id) => id).sort((a, b) => Math.sign(score(b) - score(a)) || a - b);
  const taken = new Map(texts.map((text, id) => [text, id] as const).filter(([, id]) => isTaken(id)));
  const text = sentencePiece(texts, special, order, taken);
  // Which tokens of Phi-3 take the line feed behind them along is known, but not said in the file.
  const keeping = ['<unk>', '<s>', '<|endoftext|>'];
  const swallowing = [...special].filter(([name]) => !keeping.includes(name));
  const isPhi3 = metadata.values['general.architecture'] === 'phi3';
  return (
    text && {
      ...text,
      special,
      swallowing: new Set(isPhi3 ? swallowing.map(([, id]) => id) : []),
      firstSpace:
        metadata.values['tokenizer.ggml.add_space_prefix'] === false ? 'nowhere' : 'behind-specials-too',
    }
  );
}

/** Throws LongviewError `unsupported_tokenizer` (named) or `file_corrupt`. */
export function vocabularyFromGguf(metadata: ModelMetadata): Vocabulary {
  const model = metadata.values['tokenizer.ggml.model'];
  const pre =
    metadata.values['tokenizer.ggml.pre'] ??
    unnamedPattern(metadata.values['general.architecture'], metadata.values['tokenizer.ggml.tokens']);
  let text: Text | undefined;
  if (model === 'llama') text = sentencePieceText(metadata);
  else if (model === 'gpt2' && typeof pre === 'string' && Object.hasOwn(patterns, pre))
    text = byteLevelText(metadata, pre);
  if (!text) throw unsupportedTokenizer(`The model's tokenizer (${String(model)}, ${String(pre)})`);
  const { tokens, special } = text;
  const id = (key: string): number | undefined => {
    const value = metadata.values[`tokenizer.ggml.${key}`];
    return typeof value === 'number' && value >= 0 && value < tokens.length ? value : undefined;
  };
  const ends = endTexts.map((text) => special.get(text));
  const stops = [id('eos_token_id'), id('eot_token_id'), ...ends];
  const template = metadata.values['tokenizer.chat_template'];
  return {
    ...text,
    stopTokens: [...new Set(stops.filter((stop) => stop !== undefined))],
    bosToken: id('bos_token_id'),
    chatTemplate: typeof template === 'string' ? template : undefined,
  };
}
