/** The calibration text: every key twice, far apart, within its length. */
import { afterAll, beforeAll, expect, it } from 'vitest';
import { readModelMetadata } from '../../../server/engine/nativeEngine';
import { calibrationText } from '../../../server/prompt/calibrationText';
import { createChatFormat, type ChatFormat } from '../../../server/prompt/template';
import { createTokenizer } from '../../../server/tokenizer/tokenizer';
import type { Tokenizer } from '../../../server/tokenizer/types';
import { vocabularyFromGguf } from '../../../server/tokenizer/vocabulary';
import { builtInModel } from '../reference';

let tokenizer: Tokenizer;
let format: ChatFormat;
beforeAll(() => {
  tokenizer = createTokenizer(vocabularyFromGguf(readModelMetadata(builtInModel)));
  format = createChatFormat(tokenizer);
});
afterAll(() => tokenizer.dispose());

const files = Array.from({ length: 20 }, (_, i) => ({
  path: `src/part_${i}.py`,
  text: Array.from({ length: 100 }, (_, j) => `def part_${i}_${j}(cells):\n    return cells[${j}:]\n`).join(
    '\n',
  ),
}));
const made = (tokens: number, of = files) =>
  calibrationText({ tokenizer, format }, { name: 'x', files: of }, tokens);

it('names every key at its beginning and again at its end, whatever lies between', () => {
  const ids = made(9000);
  expect(ids).toHaveLength(9000);
  expect(made(9000)).toEqual(ids);
  const text = tokenizer.decode(ids);
  const keys = [...text.matchAll(/'([0-9a-f]{4}-[0-9a-f]{4})': '([0-9a-f]{8})'/g)];
  expect(new Set(keys.map(([, key]) => key)).size).toBe(32);
  for (const [, key, value] of keys) {
    const again = text.lastIndexOf(`assert ROUTES['${key}'] == '${value}'`);
    expect(again - text.indexOf(`'${key}': `)).toBeGreaterThan(text.length / 2);
  }
  expect(text).toContain('def part_0_0(cells)');
});

it('is shorter where there is less to read, and none where there is too little', () => {
  const ids = made(60_000);
  expect(ids.length).toBeGreaterThan(9000);
  expect(ids.length).toBeLessThan(60_000);
  expect(() => made(60_000, files.slice(0, 1))).toThrow(/at least 4096 are needed/);
  expect(() => made(3000)).toThrow(/at least 4096 are needed/);
  expect(() => made(4095)).toThrow(/cannot be calibrated on 4095 tokens/);
  expect(made(4096)).toHaveLength(4096);
});
