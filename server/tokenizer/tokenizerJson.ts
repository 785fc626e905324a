/** The vocabulary of a safetensors model: tokenizer.json and its neighbours. Hostile input: everything is checked. */
import { readFileSync, statSync } from 'node:fs';
import path from 'node:path';
import { LongviewError } from '../errors';
import { asItIs, bytesOf, byteLevelRanks, toNfc } from './byteLevel';
import { byteOf, isGemmaText, sentencePiece, spaceMark } from './sentencePiece';
import type { Vocabulary } from './types';
import { endTexts, patternNames, patterns, unsupportedTokenizer } from './vocabulary';

type Json = Record<string, unknown>;

const maxBytes = 64 << 20;

/** Undefined where there is no such file; a pipe, which would be waited for, is none. */
function readText(file: string): string | undefined {
  try {
    const status = statSync(file);
    if (status.size > maxBytes) throw new LongviewError('file_corrupt', `${file} is too large.`);
    return status.isFile() ? readFileSync(file, 'utf8') : undefined;
  } catch (error) {
    if (error instanceof LongviewError) throw error;
    return undefined;
  }
}

function readJson(file: string): Json | undefined {
  const text = readText(file);
  if (text === undefined) return undefined;
  try {
    const value: unknown = JSON.parse(text);
    if (value !== null && typeof value === 'object' && !Array.isArray(value)) return value as Json;
  } catch {
    // Said below.
  }
  throw new LongviewError('file_corrupt', `${file} is damaged: it is no JSON object.`);
}

const object = (value: unknown): Json =>
  value !== null && typeof value === 'object' && !Array.isArray(value) ? (value as Json) : {};
const list = (value: unknown): unknown[] => (Array.isArray(value) ? value : []);

/** The steps of a pre-tokenizer or normalizer, a sequence taken apart. */
function steps(value: unknown): Json[] {
  const step = object(value);
  if (step.type !== 'Sequence') return step.type === undefined ? [] : [step];
  return list(step.pretokenizers ?? step.normalizers).map(object);
}

/** The name of the pattern that the pre-tokenizer's steps amount to, one of vocabulary.ts's. */
function patternName(preTokenizer: unknown): string | undefined {
  const all = steps(preTokenizer);
  const byteLevel = all.find((step) => step.type === 'ByteLevel');
  if (!byteLevel || byteLevel.add_prefix_space === true) return undefined;
  const others = all.filter((step) => step !== byteLevel);
  if (others.length === 0) return byteLevel.use_regex === false ? undefined : 'gpt-2';
  if (others.length > 1) return undefined;
  const [only] = others;
  if (only?.type === 'Digits' && only.individual_digits === true) return 'smollm';
  const regex = object(only?.pattern).Regex;
  if (only?.type !== 'Split' || only.behavior !== 'Isolated' || byteLevel.use_regex !== false)
    return undefined;
  return patternNames.find((name) => patterns[name] === regex);
}

/** Gemma's, at spaces, where its normalizer left none. */
function isGemmaSplit(preTokenizer: unknown): boolean {
  const [only, ...others] = steps(preTokenizer);
  return only?.type === 'Split' && object(only.pattern).String === ' ' && others.length === 0;
}

/** Where SentencePiece, as its tokenizer.json has it, puts a space that the text does not have; undefined: it is another one. */
function firstSpace({ normalizer, pre_tokenizer: preTokenizer }: Json): Vocabulary['firstSpace'] | undefined {
  const normalizers = steps(normalizer);
  const [metaspace, ...others] = steps(preTokenizer);
  if (metaspace && !isGemmaSplit(preTokenizer)) {
    const { type, replacement, split, prepend_scheme: scheme } = metaspace;
    if (type !== 'Metaspace' || replacement !== spaceMark || split !== false) return undefined;
    if (others.length > 0 || normalizers.length > 0) return undefined;
    if (scheme === 'never') return 'nowhere';
    return scheme === 'first' ? 'text' : 'behind-specials-too';
  }
  const marks = (step: Json) =>
    step.type === 'Replace' && object(step.pattern).String === ' ' && step.content === spaceMark;
  const prepends = (step: Json) => step.type === 'Prepend' && step.prepend === spaceMark;
  if (!normalizers.some(marks) || !normalizers.every((step) => marks(step) || prepends(step)))
    return undefined;
  return normalizers.some(prepends) ? 'behind-specials-too' : 'nowhere';
}

type Merging = Pick<Vocabulary, 'tokens' | 'pattern' | 'ranks' | 'prepare' | 'firstSpace'>;
type Damaged = (what: string) => LongviewError;

/** Texts of all tokens by id, and which of them are special. */
function tokensOf(json: Json, damaged: Damaged) {
  const texts: string[] = [];
  const place = (id: unknown, text: string): number => {
    if (!Number.isSafeInteger(id) || (id as number) < 0 || (id as number) > 1 << 22)
      throw damaged('a token has no valid id');
    texts[id as number] = text;
    return id as number;
  };
  const special = new Map<string, number>();
  const taken = new Map<string, number>();
  const swallowing = new Set<number>();
  const isGemma = isGemmaSplit(json.pre_tokenizer);
  for (const { content, id, rstrip, special: isSpecial } of list(json.added_tokens).map(object)) {
    if (typeof content !== 'string') throw damaged('an added token has no text');
    const isText = isGemma && isSpecial === false && isGemmaText(content);
    (isText ? taken : special).set(content, place(id, content));
    if (rstrip === true) swallowing.add(id as number);
  }
  for (const [text, id] of Object.entries(object(object(json.model).vocab)))
    if (!special.has(text) && !taken.has(text)) place(id, text);
  // Ids may be far apart.
  for (let id = 0; id < texts.length; id++) texts[id] ??= '';
  return { texts, special, taken, swallowing };
}

/** Undefined where it is no byte-level BPE that is known here. */
function byteLevel(
  json: Json,
  texts: readonly string[],
  special: ReadonlyMap<string, number>,
  merges: readonly string[],
): Merging | undefined {
  const pattern = patterns[patternName(json.pre_tokenizer) ?? ''];
  const normalizers = steps(json.normalizer).map((step) => step.type);
  if (pattern === undefined || normalizers.some((type) => type !== 'NFC')) return undefined;
  // One for all that there is none of.
  const nothing = new Uint8Array();
  const tokens = texts.map((text, id) => {
    if (text === '') return nothing;
    return (special.get(text) === id ? undefined : bytesOf(text)) ?? new TextEncoder().encode(text);
  });
  const ranks = byteLevelRanks(tokens, special, merges);
  return { tokens, pattern, ranks, prepare: normalizers.length > 0 ? toNfc : asItIs, firstSpace: 'nowhere' };
}

/** Undefined where it is no SentencePiece. */
function pieces(
  json: Json,
  texts: readonly string[],
  special: ReadonlyMap<string, number>,
  taken: ReadonlyMap<string, number>,
  merges: readonly string[],
): Merging | undefined {
  const spaces = firstSpace(json);
  if (spaces === undefined) return undefined;
  const idOf = new Map(texts.map((text, id) => [text, id]));
  const merged = merges.flatMap((merge) => idOf.get(merge.replace(' ', '')) ?? []);
  const unmerged = texts.flatMap((text, id) =>
    [...text].length === 1 || byteOf(text) !== undefined ? [id] : [],
  );
  const found = sentencePiece(texts, special, [...unmerged, ...merged], taken);
  return found && { ...found, firstSpace: spaces };
}

/** Throws LongviewError `file_not_found`, `file_corrupt` or `unsupported_tokenizer`. */
export function vocabularyFromTokenizerJson(folder: string): Vocabulary {
  const file = path.join(folder, 'tokenizer.json');
  const json = readJson(file);
  if (!json)
    throw new LongviewError(
      'file_not_found',
      `The model has no tokenizer: ${file} is missing. Download it too.`,
    );
  const damaged: Damaged = (what) => new LongviewError('file_corrupt', `${file} is damaged: ${what}.`);
  const model = object(json.model);
  const { texts, special, taken, swallowing } = tokensOf(json, damaged);
  const merges = list(model.merges).map((merge) => {
    const text = Array.isArray(merge) ? merge.join(' ') : merge;
    if (typeof text !== 'string') throw damaged('a merge is no pair');
    return text;
  });
  const merging =
    model.type === 'BPE'
      ? (byteLevel(json, texts, special, merges) ?? pieces(json, texts, special, taken, merges))
      : undefined;
  if (!merging) throw unsupportedTokenizer(`The tokenizer in ${file}`);

  const config = readJson(path.join(folder, 'tokenizer_config.json')) ?? {};
  const generation = readJson(path.join(folder, 'generation_config.json')) ?? {};
  const idOf = (token: unknown): number | undefined => {
    const text = typeof token === 'string' ? token : object(token).content;
    return typeof text === 'string' ? special.get(text) : undefined;
  };
  const ends = endTexts.map(idOf);
  const given = [generation.eos_token_id].flat().filter((id) => typeof id === 'number' && id in texts);
  const stops = [idOf(config.eos_token), ...(given as number[]), ...ends];
  return {
    ...merging,
    special,
    swallowing,
    stopTokens: [...new Set(stops.filter((stop) => stop !== undefined))],
    bosToken: idOf(config.bos_token),
    chatTemplate: chatTemplate(folder, config),
  };
}

function chatTemplate(folder: string, config: Json): string | undefined {
  const named = list(config.chat_template).map(object);
  const chosen = named.find((template) => template.name === 'default') ?? named[0];
  const template = chosen?.template ?? config.chat_template;
  return (
    readText(path.join(folder, 'chat_template.jinja')) ??
    (typeof template === 'string' ? template : undefined)
  );
}
