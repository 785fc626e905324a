/** The vocabulary of a safetensors model: tokenizer.json and its neighbours. Hostile input: everything is checked. */
import { readFileSync, statSync } from 'node:fs';
import path from 'node:path';
import { LongviewError } from '../errors';
import {
  bytesOf,
  endTexts,
  patternNames,
  patterns,
  unsupportedTokenizer,
  type Vocabulary,
} from './vocabulary';

type Json = Record<string, unknown>;

const maxBytes = 64 << 20;

function readJson(file: string): Json | undefined {
  let text: string;
  try {
    if (statSync(file).size > maxBytes) throw new LongviewError('file_corrupt', `${file} is too large.`);
    text = readFileSync(file, 'utf8');
  } catch (error) {
    if (error instanceof LongviewError) throw error;
    return undefined;
  }
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

/** Throws LongviewError `file_not_found`, `file_corrupt` or `unsupported_tokenizer`. */
export function vocabularyFromTokenizerJson(folder: string): Vocabulary {
  const file = path.join(folder, 'tokenizer.json');
  const json = readJson(file);
  if (!json)
    throw new LongviewError(
      'file_not_found',
      `The model has no tokenizer: ${file} is missing. Download it too.`,
    );
  const model = object(json.model);
  const name = patternName(json.pre_tokenizer);
  const normalizers = steps(json.normalizer).map((step) => step.type);
  if (model.type !== 'BPE' || !name || normalizers.some((type) => type !== 'NFC'))
    throw unsupportedTokenizer(`The tokenizer in ${file}`);
  const damaged = (what: string) => new LongviewError('file_corrupt', `${file} is damaged: ${what}.`);
  const tokens: Uint8Array[] = [];
  const place = (id: unknown, bytes: Uint8Array) => {
    if (!Number.isSafeInteger(id) || (id as number) < 0 || (id as number) > 1 << 22)
      throw damaged('a token has no valid id');
    tokens[id as number] = bytes;
  };
  const special = new Map<string, number>();
  for (const added of list(json.added_tokens).map(object)) {
    if (typeof added.content !== 'string') throw damaged('an added token has no text');
    place(added.id, new TextEncoder().encode(added.content));
    special.set(added.content, added.id as number);
  }
  for (const [text, id] of Object.entries(object(model.vocab))) {
    if (special.has(text)) continue;
    place(id, bytesOf(text) ?? new TextEncoder().encode(text));
  }
  // One for all of them: ids may be far apart.
  const nothing = new Uint8Array();
  for (let id = 0; id < tokens.length; id++) tokens[id] ??= nothing;
  const merges = list(model.merges).map((merge) => {
    const text = Array.isArray(merge) ? merge.join(' ') : merge;
    if (typeof text !== 'string') throw damaged('a merge is no pair');
    return text;
  });

  const config = readJson(path.join(folder, 'tokenizer_config.json')) ?? {};
  const generation = readJson(path.join(folder, 'generation_config.json')) ?? {};
  const idOf = (token: unknown): number | undefined => {
    const text = typeof token === 'string' ? token : object(token).content;
    return typeof text === 'string' ? special.get(text) : undefined;
  };
  const ends = endTexts.map(idOf);
  const given = [generation.eos_token_id].flat().filter((id) => typeof id === 'number' && id in tokens);
  const stops = [idOf(config.eos_token), ...(given as number[]), ...ends];
  return {
    tokens,
    special,
    pattern: patterns[name] ?? '',
    merges,
    normalize: normalizers.includes('NFC'),
    stopTokens: [...new Set(stops.filter((stop) => stop !== undefined))],
    bosToken: idOf(config.bos_token),
    chatTemplate: chatTemplate(folder, config),
  };
}

function chatTemplate(folder: string, config: Json): string | undefined {
  try {
    return readFileSync(path.join(folder, 'chat_template.jinja'), 'utf8');
  } catch {
    const named = list(config.chat_template).map(object);
    const chosen = named.find((template) => template.name === 'default') ?? named[0];
    const template = chosen?.template ?? config.chat_template;
    return typeof template === 'string' ? template : undefined;
  }
}
