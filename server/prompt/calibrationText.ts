/**
 * What a model is calibrated on: files as a prompt holds them, between a table of keys and values and a file that names each
 * pair again. Retrieval over the whole text is where sparse attention breaks first.
 */
import { LongviewError } from '../errors';
import type { Tokenizer } from '../tokenizer/types';
import { fileText, head, tail } from './frame';
import { concat, type ChatFormat } from './template';

export interface CalibrationSource {
  name: string;
  files: readonly { path: string; text: string }[];
}

/** About 700 tokens a file. */
const pairCount = 32;
const leastTokens = 4096;

/** At most `tokens` of them: where the files are longer, the last ones are cut. Throws LongviewError `empty_workspace`, or `invalid_argument` for too few. */
export function calibrationText(
  { tokenizer, format }: { tokenizer: Tokenizer; format: ChatFormat },
  source: CalibrationSource,
  tokens: number,
): Int32Array {
  if (tokens < leastTokens)
    throw new LongviewError(
      'invalid_argument',
      `A model cannot be calibrated on ${tokens} tokens, which are as many as were asked for or its window holds: at least ${leastTokens} are needed.`,
    );
  const pairs = keyValuePairs();
  const table = { path: 'routes/table.py', text: tableText(pairs) };
  const check = { path: 'routes/test_table.py', text: checkText(pairs) };
  const paths = [table, ...source.files, check].map((file) => file.path);
  const encoded = (file: { path: string; text: string }) => tokenizer.encode(fileText(file.path, file.text));
  const before = concat(tokenizer.encode(head(source.name, paths)), encoded(table));
  const after = concat(encoded(check), tokenizer.encode(tail));
  const frame = format.system(concat(before, after)).length;

  const parts: Int32Array[] = [];
  let room = tokens - frame;
  for (const file of source.files) {
    if (room <= 0) break;
    const part = encoded(file).subarray(0, room);
    parts.push(part);
    room -= part.length;
  }
  const text = format.system(concat(before, ...parts, after));
  if (text.length < leastTokens)
    throw new LongviewError(
      'empty_workspace',
      `There are only ${text.length} tokens to calibrate on, at least ${leastTokens} are needed. Name a larger folder or text.`,
    );
  return text;
}

/** The same ones each time, so that an interrupted calibration finds its text again. */
function keyValuePairs(): [string, string][] {
  let state = 1;
  const hex = (digits: number) =>
    Array.from({ length: digits }, () => {
      state = Math.imul(state, 1103515245) + 12345;
      return ((state >>> 16) & 15).toString(16);
    }).join('');
  return Array.from({ length: pairCount }, () => [`${hex(4)}-${hex(4)}`, hex(8)]);
}

function tableText(pairs: readonly [string, string][]): string {
  const lines = pairs.map(([key, value]) => `    '${key}': '${value}',\n`);
  return `"""Where each service is found."""\n\nROUTES = {\n${lines.join('')}}\n`;
}

/** In another order than the table's. */
function checkText(pairs: readonly [string, string][]): string {
  const sorted = [...pairs].sort(([, a], [, b]) => (a < b ? -1 : 1));
  const lines = sorted.map(([key, value]) => `    assert ROUTES['${key}'] == '${value}'\n`);
  return `from routes.table import ROUTES\n\n\ndef test_routes():\n${lines.join('')}`;
}
