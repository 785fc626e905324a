/** Token sequences with the answers in them marked: what the evaluation is run on, and how it is kept in a file. */
import { readSafetensors, writeSafetensors } from './safetensors';

/** Consecutive answer tokens of one sequence: positions `from` to `to - 1`. */
export interface Answer {
  from: number;
  to: number;
  /** What kind of question it answers; empty where the file does not say. */
  kind: string;
}

export interface Sequence {
  /** Its row in the file. */
  index: number;
  tokens: Int32Array;
  answers: Answer[];
}

export interface Data {
  /** Tokens of every sequence, padding included. */
  n: number;
  /** Those with answers. */
  sequences: Sequence[];
}

/** What a file holds. */
export interface DataFile extends Data {
  /** Its rows, those without an answer too. */
  rows: number;
}

/**
 * Reads `tokens` I32 [sequences, n] and `mask` U8 [sequences, n], 1 on answer tokens; each run of ones is an answer. The
 * metadata may name their kinds: `kinds`, separated by commas, in the order of the answers.
 * Throws a sentence where a file cannot be evaluated.
 */
export function readData(path: string): DataFile {
  const { tensors, metadata } = readSafetensors(path, { tokens: 'I32', mask: 'U8' });
  const { tokens, mask } = tensors;
  const fail = (what: string): never => {
    throw new Error(`${path}: ${what}`);
  };
  const [count = 0, n = 0] = tokens.shape;
  if (tokens.shape.length !== 2 || count < 1 || n < 2)
    fail(`\`tokens\` is [${tokens.shape.join(', ')}], not [sequences, n] with n of 2 or more`);
  if (mask.shape.join() !== tokens.shape.join())
    fail(`\`mask\` is [${mask.shape.join(', ')}], \`tokens\` [${tokens.shape.join(', ')}]`);
  if (mask.data.some((x) => x > 1)) fail('`mask` holds other values than 0 and 1');

  const sequences = Array.from({ length: count }, (_, i) => ({
    index: i,
    tokens: tokens.data.slice(i * n, (i + 1) * n) as Int32Array,
    answers: runsOf(mask.data.subarray(i * n, (i + 1) * n) as Uint8Array),
  }));
  const answers = sequences.flatMap((sequence) => sequence.answers);
  if (answers.length === 0) fail('`mask` marks no answer');
  const first = sequences.find((sequence) => sequence.answers[0]?.from === 0);
  if (first) fail(`an answer stands at the start of sequence ${first.index}, after nothing`);
  const kinds = metadata.kinds?.split(',');
  if (kinds && kinds.length !== answers.length)
    fail(`the metadata names ${kinds.length} kinds, \`mask\` marks ${answers.length} answers`);
  kinds?.forEach((kind, i) => (answers[i]!.kind = kind));
  return { n, rows: count, sequences: sequences.filter((sequence) => sequence.answers.length > 0) };
}

/**
 * The sequences in these rows of a file, in its order; all where none are named. A row that is not there, or none with an answer, is an
 * error; what else is passed over is told to `onPassed`, in a sentence.
 */
export function choose(
  { n, rows, sequences }: DataFile,
  wanted: readonly number[] | undefined,
  onPassed: (sentence: string) => void,
): Data {
  const beyond = wanted?.find((row) => row >= rows);
  if (beyond !== undefined) throw new Error(`There is no sequence ${beyond}: the file has 0 to ${rows - 1}.`);
  const asked = new Set(wanted ?? Array.from({ length: rows }, (_, row) => row));
  const chosen = sequences.filter(({ index }) => asked.has(index));
  if (chosen.length === 0)
    throw new Error('None of these sequences has an answer: `mask` marks nothing in them.');
  for (const { index } of chosen) asked.delete(index);
  const named =
    [...asked]
      .sort((a, b) => a - b)
      .slice(0, 20)
      .join(', ') + (asked.size > 20 ? ', …' : '');
  if (asked.size > 0)
    onPassed(
      `Passed over, for \`mask\` marks no answer in them: ${asked.size} of ${asked.size + chosen.length} sequences (${named}).`,
    );
  return { n, sequences: chosen };
}

/**
 * Whether a model can read them, asked before hours of work: tokens that it does not know, sequences beyond its window. What follows
 * the last answer is not run: padding may be anything. Throws a sentence that names the sequence.
 */
export function checkReadable({ sequences }: Data, vocabularySize: number, window: number): void {
  for (const { index, tokens, answers } of sequences) {
    const end = answers.at(-1)!.to;
    if (end > window)
      throw new Error(
        `Sequence ${index} has ${end} tokens up to the end of its last answer, which do not fit the window of ${window}.`,
      );
    const run = tokens.subarray(0, end);
    const at = run.findIndex((token) => token < 0 || token >= vocabularySize);
    if (at >= 0)
      throw new Error(
        `Sequence ${index} has the token ${run[at]} at position ${at}, outside the model's vocabulary of ${vocabularySize}.`,
      );
  }
}

function runsOf(mask: Uint8Array): Answer[] {
  const runs: Answer[] = [];
  for (const [i, marked] of mask.entries()) {
    const last = runs.at(-1);
    if (!marked) continue;
    if (last?.to === i) last.to++;
    else runs.push({ from: i, to: i + 1, kind: '' });
  }
  return runs;
}

export function writeData(path: string, { n, sequences }: Data): void {
  const tokens = new Int32Array(sequences.length * n);
  const mask = new Uint8Array(sequences.length * n);
  for (const [i, sequence] of sequences.entries()) {
    tokens.set(sequence.tokens, i * n);
    for (const { from, to } of sequence.answers) mask.fill(1, i * n + from, i * n + to);
  }
  const shape = [sequences.length, n];
  const kinds = sequences.flatMap((sequence) => sequence.answers.map((answer) => answer.kind));
  writeSafetensors(
    path,
    { tokens: { dtype: 'I32', shape, data: tokens }, mask: { dtype: 'U8', shape, data: mask } },
    kinds.every((kind) => kind !== '') ? { kinds: kinds.join(',') } : {},
  );
}
