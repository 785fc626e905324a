/** Numbers on their way into the engine: one that it cannot take is refused with a sentence, never cut, wrapped or brought into range. */
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, beforeEach, expect, it } from 'vitest';
import type {
  Context,
  Engine,
  EngineOptions,
  GenerateOptions,
  SamplingOptions,
  TokenIds,
} from '../../../server/engine/engine';
import { openNativeEngine } from '../../../server/engine/nativeEngine';
import { root } from '../reference';

const model = path.join(root, 'test/fixtures/native/llama.Q8_0.gguf');
const text = Int32Array.from({ length: 300 }, (_, i) => 3 + ((i * 37) % 90));
const folder = mkdtempSync(path.join(tmpdir(), 'longview-numbers-'));
let engine: Engine;
let context: Context;

beforeAll(async () => {
  engine = await openNativeEngine(model, { device: 'cpu', threads: 1, prefill: { mode: 'adaptive' } });
});
beforeEach(async () => {
  context = await engine.createContext();
  await context.extend(text);
});
afterAll(async () => {
  await engine.dispose();
  rmSync(folder, { recursive: true });
});

const refused = (sentence: RegExp) => ({
  code: 'invalid_argument',
  message: expect.stringMatching(sentence) as string,
});
const notWhole = [NaN, Infinity, -Infinity, 1e300, 0.5, -1, -1e300, '5'];

it.each<[string, (value: number) => Partial<EngineOptions>, unknown[]]>([
  ['threads', (threads) => ({ threads }), [...notWhole, 1025]],
  ['kvBudgetBytes', (kvBudgetBytes) => ({ kvBudgetBytes }), [...notWhole, 2 ** 53]],
])('opens no engine with bad %s', async (name, options, values) => {
  for (const value of values)
    await expect(
      openNativeEngine(model, { device: 'cpu', ...options(value as number) }),
    ).rejects.toMatchObject(refused(new RegExp(`^${name} must be a whole number from 0 to \\d+`)));
});

const generate = (options: Partial<GenerateOptions>) =>
  context.generate({ maxTokens: 2, stopTokens: [], ...options });

it.each<[string, (value: number) => Partial<GenerateOptions>, unknown[]]>([
  ['maxTokens', (maxTokens) => ({ maxTokens }), [...notWhole, 2 ** 53]],
  ['topK', (topK) => ({ sampling: { topK, temperature: 1 } }), [...notWhole, 2 ** 31]],
  ['seed', (seed) => ({ sampling: { seed, temperature: 1 } }), [...notWhole, 2 ** 53]],
  ['temperature', (temperature) => ({ sampling: { temperature } }), [NaN, -1, 1e300, 101, '1']],
  ['topP', (topP) => ({ sampling: { topP } }), [NaN, -0.1, 1.1, 1e300]],
  ['minP', (minP) => ({ sampling: { minP } }), [NaN, -0.1, 1.1, 1e300]],
  ['A token id', (token) => ({ stopTokens: [token] }), [NaN, 0.5, 2 ** 32 + 5, '5', undefined]],
  ['A token id', (token) => ({ stopSequences: [[token] as unknown as TokenIds] }), [NaN, 2 ** 32 + 5]],
  ['Token ids', (list) => ({ stopSequences: [list as unknown as TokenIds] }), [5, { length: 1 }]],
])('generates nothing with bad %s', async (name, options, values) => {
  for (const value of values)
    await expect(generate(options(value as number))).rejects.toMatchObject(
      refused(new RegExp(`^${name} must be`)),
    );
  expect(context.length).toBe(text.length);
});

it('takes the largest that are allowed', async () => {
  const sampling: SamplingOptions = { temperature: 100, topK: 2 ** 31 - 1, seed: Number.MAX_SAFE_INTEGER };
  const [first] = (await generate({ sampling })).tokens;
  await context.truncate(0);
  await context.extend(text);
  const all = await generate({ sampling, maxTokens: Number.MAX_SAFE_INTEGER, stopTokens: [first!] });
  expect(all).toMatchObject({ finish: 'stop', tokens: new Int32Array() });
});

it('cuts a context at whole numbers alone', async () => {
  for (const length of [NaN, 100.5, 1e300, -Infinity])
    await expect(context.truncate(length)).rejects.toMatchObject(refused(/must be a whole number/));
  for (const from of [NaN, 100.5])
    await expect(context.focus(from)).rejects.toMatchObject(refused(/whole number/));
  expect(context.length).toBe(text.length);
  await context.generate({ maxTokens: 1, stopTokens: [] });
});

it('writes nothing by bad numbers, and calibrates for nothing that it does not know', async () => {
  for (const maxBytes of [NaN, -1, 0.5, 1e300])
    await expect(context.save({ folder, maxBytes })).rejects.toMatchObject(refused(/^maxBytes must be/));
  const calibrate = (options: object) => engine.calibrate(text, { folder, targets: ['fast'], ...options });
  for (const density of [NaN, -1, 0, 1.5])
    await expect(calibrate({ density })).rejects.toMatchObject(refused(/^density must be/));
  for (const fromToken of [NaN, -1, 0.5, 1e300])
    await expect(calibrate({ fromToken })).rejects.toMatchObject(refused(/^fromToken must be/));
  await expect(calibrate({ targets: ['fast', 'exact'] })).rejects.toMatchObject(refused(/no target "exact"/));
  await expect(calibrate({ folder: undefined })).rejects.toMatchObject(refused(/must be a string/));
  expect(readdirSync(folder)).toEqual([]);
});
