/** Token sequences with the answers in them marked: what the evaluation is run on, and how it is kept in a file. */
import { withSafetensors, writeSafetensors, type StoredTensor } from './safetensors';

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
  /** Up to the end of its last answer at least: what follows is not run. */
  tokens: Int32Array;
  answers: Answer[];
}

export interface Data {
  /** Tokens of every sequence, padding included. */
  n: number;
  /** Those with answers. */
  sequences: Sequence[];
}

/** No window is as long by far; so many tokens are at hand at once. */
const longestSequence = 2 ** 28;
/** No evaluation ends that has so many; each takes memory before the first is looked at. */
const mostAnswers = 2 ** 20;

/**
 * Reads `tokens` I32 [sequences, n] and `mask` U8 [sequences, n], 1 on answer tokens; each run of ones is an answer. The
 * metadata may name their kinds: `kinds`, separated by commas, in the order of the answers.
 * Of `wanted` rows, all where none are named, in the file's order: tokens are read up to the end of the last answer, those of other rows
 * not at all. Rows without an answer are passed over, which is told to `onPassed` in a sentence.
 * Throws a sentence where a file cannot be evaluated, a row that was asked for is not there, or none of them has an answer.
 */
export function readData(
  path: string,
  wanted?: readonly number[],
  onPassed: (sentence: string) => void = () => undefined,
): Data {
  const fail = (what: string): never => {
    throw new Error(`${path}: ${what}`);
  };
  return withSafetensors(path, { tokens: 'I32', mask: 'U8' }, ({ tokens, mask }, metadata) => {
    const [count = 0, n = 0] = tokens.shape;
    if (tokens.shape.length !== 2 || count < 1 || n < 2)
      fail(`\`tokens\` is [${tokens.shape.join(', ')}], not [sequences, n] with n of 2 or more`);
    if (mask.shape.join() !== tokens.shape.join())
      fail(`\`mask\` is [${mask.shape.join(', ')}], \`tokens\` [${tokens.shape.join(', ')}]`);
    const beyond = wanted?.find((row) => row >= count);
    if (beyond !== undefined) fail(`there is no sequence ${beyond}, only 0 to ${count - 1}`);

    const marked = readAnswers(mask, count, n, fail);
    const answers = [...marked.values()].flat();
    if (answers.length === 0) fail('`mask` marks no answer');
    const kinds = metadata.kinds?.split(',');
    if (kinds && kinds.length !== answers.length)
      fail(`the metadata names ${kinds.length} kinds, \`mask\` marks ${answers.length} answers`);
    kinds?.forEach((kind, i) => (answers[i]!.kind = kind));

    const asked = wanted ? new Set(wanted) : { size: count, has: () => true };
    const chosen = [...marked].filter(([row]) => asked.has(row));
    if (chosen.length === 0) fail('none of these sequences has an answer: `mask` marks nothing in them');
    const passed = asked.size - chosen.length;
    if (passed > 0)
      onPassed(
        `Passed over, for \`mask\` marks no answer in them: ${passed} of ${asked.size} sequences (${firstRows(
          count,
          (row) => asked.has(row) && !marked.has(row),
        )}).`,
      );
    const sequences = chosen.map(([index, list]) => {
      const end = list.at(-1)!.to;
      if (end > longestSequence)
        fail(`sequence ${index} has ${end} tokens up to the end of its last answer: no model reads so many`);
      return { index, tokens: tokens.read(index * n, index * n + end), answers: list };
    });
    return { n, sequences };
  });
}

/** For a sentence. */
function firstRows(count: number, within: (row: number) => boolean): string {
  const most = 20;
  const rows: string[] = [];
  for (let row = 0; row < count && rows.length <= most; row++) if (within(row)) rows.push(String(row));
  if (rows.length > most) rows[most] = '…';
  return rows.join(', ');
}

/** Of each row that has some. */
function readAnswers(
  mask: StoredTensor<'U8'>,
  count: number,
  n: number,
  fail: (what: string) => never,
): Map<number, Answer[]> {
  const rows = new Map<number, Answer[]>();
  let answers = 0;
  const blockBytes = 2 ** 24;
  for (let from = 0; from < count * n; from += blockBytes) {
    const block = mask.read(from, Math.min(from + blockBytes, count * n));
    for (let i = 0; i < block.length; i++) {
      if (block[i] === 0) continue;
      if (block[i] !== 1) fail('`mask` holds other values than 0 and 1');
      const row = Math.floor((from + i) / n);
      const at = (from + i) % n;
      if (at === 0) fail(`an answer stands at the start of sequence ${row}, after nothing`);
      const runs = rows.get(row) ?? [];
      if (runs.length === 0) rows.set(row, runs);
      const last = runs.at(-1);
      if (last?.to === at) {
        last.to++;
        continue;
      }
      if (++answers > mostAnswers)
        fail(
          `\`mask\` marks more than ${mostAnswers} answers up to sequence ${row}: each run of ones is one`,
        );
      runs.push({ from: at, to: at + 1, kind: '' });
    }
  }
  return rows;
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
