/** The addon through its interface: sampling, stops, priorities, and what it says of wrong use. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import type { Context, EngineOptions, PrefillProgress } from '../../../server/engine/engine';
import { openNativeEngine } from '../../../server/engine/nativeEngine';
import { openModel, type OpenModel } from '../../../server/models/openModel';
import { whyNoGpu } from '../../../server/platform/gpu';
import { onPlatform } from '../platform/onPlatform';
import { builtInModel, root } from '../reference';

let model: OpenModel;
let context: Context;
const prompt = () => model.tokenizer.encodeWithSpecials('<|im_start|>user\nWhat is a parser?<|im_end|>\n');

beforeAll(async () => {
  model = await openModel(builtInModel);
  context = await model.engine.createContext();
});
afterAll(() => model.dispose());

/** Generates behind the prompt, from a state that holds the prompt alone. */
async function generate(options: Partial<Parameters<Context['generate']>[0]> = {}) {
  await context.truncate(0);
  await context.extend(prompt());
  const seen: number[] = [];
  const result = await context.generate({
    maxTokens: 12,
    stopTokens: [],
    onToken: (token) => seen.push(token),
    ...options,
  });
  expect(seen).toEqual([...result.tokens]);
  expect(context.length).toBe(prompt().length + result.tokens.length);
  return result;
}

it('is greedy, and ends at its length', async () => {
  const first = await generate();
  expect(first).toMatchObject({ finish: 'length' });
  expect(first.tokens.length).toBe(12);
  expect((await generate()).tokens).toEqual(first.tokens);
  expect((await generate({ maxTokens: 5 })).tokens).toEqual(first.tokens.subarray(0, 5));
});

it('ends before a stop token and before a stop sequence, and goes on from there', async () => {
  const { tokens } = await generate();
  const at = tokens.findIndex((token, i) => i > 2 && tokens.indexOf(token) === i);
  const token = await generate({ stopTokens: [tokens[at]!] });
  expect(token.finish).toBe('stop');
  expect(token.tokens).toEqual(tokens.subarray(0, at));
  const sequence = await generate({ stopSequences: [tokens.subarray(at, at + 3)] });
  expect(sequence.finish).toBe('stop');
  expect(sequence.tokens).toEqual(tokens.subarray(0, at));
  // What was cut off is not in the context: the same tokens lead to the same answer.
  await context.extend(tokens.subarray(at, at + 3));
  const rest = await context.generate({ maxTokens: 12 - at - 3, stopTokens: [] });
  expect(rest.tokens).toEqual(tokens.subarray(at + 3));
  // Only the beginning of a sequence: nothing is lost.
  const never = [...tokens.subarray(10, 12), 0, 0, 0];
  expect((await generate({ stopSequences: [Int32Array.from(never)] })).tokens).toEqual(tokens);
});

it('says the same in fewer passes where what it says was read before', async () => {
  await context.truncate(0);
  const file =
    '<file path="src/ledger.py">\ndef settle_accounts_of_the_quarter(ledger, until=None):\n    pass\n</file>';
  const question = 'Where is `settle_accounts_of_the_quarter` defined?';
  const turns = `<|im_start|>system\n${file}<|im_end|>\n<|im_start|>user\n${question}<|im_end|>\n<|im_start|>assistant\n`;
  await context.extend(model.tokenizer.encodeWithSpecials(turns));
  const [one, other] = [await context.fork(), await context.fork()];
  const answer = { maxTokens: 40, stopTokens: [] };
  const before = await model.engine.counters();
  const alone = await one.generate({ ...answer, guess: false });
  expect((await model.engine.counters()).guessedTokens).toBe(before.guessedTokens);
  const guessed = await other.generate(answer);
  expect(guessed.tokens).toEqual(alone.tokens);
  expect(other.length).toBe(one.length);
  const { decodedTokens, guessedTokens } = await model.engine.counters();
  expect(decodedTokens - before.decodedTokens).toBe(80);
  expect(guessedTokens - before.guessedTokens).toBeGreaterThan(10);
  await Promise.all([one.dispose(), other.dispose()]);
});

it('draws alike from the same seed', async () => {
  const sampling = { temperature: 1.5, topK: 50, seed: 3 };
  const { tokens } = await generate({ sampling });
  expect((await generate({ sampling })).tokens).toEqual(tokens);
  expect((await generate({ sampling: { ...sampling, seed: 4 } })).tokens).not.toEqual(tokens);
  await expect(generate({ sampling: { temperature: -1 } })).rejects.toMatchObject({
    code: 'invalid_argument',
  });
});

it('knows how long it is after it was stopped', async () => {
  const { tokens } = await generate();
  // Told of each token as it is chosen, and of none: all may begin a stop sequence.
  for (const stopSequences of [[], [Int32Array.of(...tokens, 0)]]) {
    await context.truncate(0);
    await context.extend(prompt());
    const stopping = new AbortController();
    const { decodedTokens } = await model.engine.counters();
    const answer = context.generate({
      maxTokens: 500,
      stopTokens: [],
      stopSequences,
      signal: stopping.signal,
    });
    const stopped = expect(answer).rejects.toMatchObject({ code: 'cancelled' });
    while ((await model.engine.counters()).decodedTokens < decodedTokens + 3);
    stopping.abort();
    await stopped;
    expect(context.length).toBeGreaterThanOrEqual(prompt().length + 3);
    await expect(context.truncate(context.length + 1)).rejects.toMatchObject({ code: 'invalid_argument' });
    await context.truncate(context.length);
  }
});

it('lets a hover go before a reading, at a chunk', async () => {
  const reading = await model.engine.createContext();
  const ids = new Int32Array(2200).map((_, i) => 1000 + (i % 2000));
  const order: string[] = [];
  let hovered: Promise<unknown> | undefined;
  await reading.extend(ids, {
    priority: 'prefill',
    onProgress: ({ done, total }) => {
      if (done < total)
        hovered ??= context.extend(prompt(), { priority: 'hover' }).then(() => order.push('hover'));
      else order.push('reading');
    },
  });
  await hovered;
  expect(order).toEqual(['hover', 'reading']);
  await reading.dispose();
});

it('saves between the chunks of a reading, and behind an answer', async () => {
  const folder = mkdtempSync(path.join(tmpdir(), 'longview-save-'));
  await context.truncate(0);
  await context.extend(Int32Array.from({ length: 256 }, (_, i) => 1000 + i));
  // Tokens of its own: what another context holds is not read again.
  const ids = (count: number, first: number) =>
    Int32Array.from({ length: count }, (_, i) => first + (i % 2000));

  // As long as it takes to be stopped by the saving, if that comes before its end.
  const reading = await model.engine.createContext();
  const stopping = new AbortController();
  let saved: Promise<unknown> | undefined;
  const read = reading.extend(ids(12_000, 3000), {
    priority: 'prefill',
    signal: stopping.signal,
    onProgress: () => {
      saved ??= context.save({ folder: path.join(folder, 'prefill') }).then(() => stopping.abort());
    },
  });
  await expect(read).rejects.toMatchObject({ code: 'cancelled' });
  await saved;

  const order: string[] = [];
  const answer = await model.engine.createContext();
  let behind: Promise<unknown> | undefined;
  await answer.extend(ids(2200, 6000), {
    priority: 'answer',
    onProgress: ({ done, total }) => {
      behind ??= context.save({ folder: path.join(folder, 'answer') }).then(() => order.push('saved'));
      if (done === total) order.push('read');
    },
  });
  await behind;
  expect(order).toEqual(['read', 'saved']);
  await reading.dispose();
  await answer.dispose();
  rmSync(folder, { recursive: true });
});

it('reads sparsely where it is told to alone, and is called like its file where that has no name', async () => {
  const file = path.join(root, 'test/fixtures/native/llama.Q8_0.gguf');
  const tiny = await openNativeEngine(file, { device: 'cpu', prefill: { mode: 'adaptive' } });
  expect(tiny.model).toMatchObject({ name: 'llama.Q8_0', path: file });
  const text = Int32Array.from({ length: 4096 }, (_, i) => (i * 7919) % tiny.model.vocabularySize);
  for (const sparse of [undefined, false, true]) {
    const own = await tiny.createContext();
    const { density } = await own.extend(text, { sparse });
    expect(density !== undefined).toBe(sparse ?? false);
    await own.dispose();
  }
  await tiny.dispose();
});

it('refuses what cannot be done, with a code', async () => {
  const window = model.engine.window;
  await expect(context.extend(Int32Array.from([49_152]))).rejects.toMatchObject({ code: 'invalid_argument' });
  await expect(context.extend(new Int32Array(window + 1))).rejects.toMatchObject({ code: 'window_exceeded' });
  await expect(context.truncate(window)).rejects.toMatchObject({ code: 'invalid_argument' });
  const empty = await model.engine.createContext();
  await expect(empty.generate({ maxTokens: 1, stopTokens: [] })).rejects.toMatchObject({
    code: 'invalid_argument',
  });
  await empty.dispose();
  const unknown = openModel(builtInModel, { gpuWeights: 'int3' as 'fp8' });
  await expect(unknown).rejects.toMatchObject({ code: 'invalid_argument' });
  const mode = openModel(builtInModel, { prefill: { mode: 'guess' as 'auto' } });
  await expect(mode).rejects.toMatchObject({ code: 'invalid_argument' });
});

it('keeps the KV state in 8 bits where it is asked to, or where 16 would not hold the window', async () => {
  const { kvBytesPerToken, window } = model.engine.model;
  const open = (options: EngineOptions) => openModel(builtInModel, { device: 'cpu', ...options });
  const narrow = await open({ kvFormat: 'q8' });
  expect(narrow.engine.model.kvLayout).toContain('q8');
  expect(narrow.engine.model.kvLayout).not.toBe(model.engine.model.kvLayout);
  expect(narrow.engine.model.kvBytesPerToken / kvBytesPerToken).toBeCloseTo(8.5 / 16, 2);
  const other = await narrow.engine.createContext();
  await other.extend(prompt());
  const { tokens } = await other.generate({ maxTokens: 12, stopTokens: [] });
  expect(tokens.length).toBe(12);
  await narrow.dispose();

  const kvBudgetBytes = Math.floor(kvBytesPerToken * window * 0.7);
  const tight = await open({ kvFormat: 'auto', kvBudgetBytes });
  expect(tight.engine.window).toBe(window);
  expect(tight.engine.device.note).toContain('8 bits');
  expect(tight.engine.windowIn4Bits).toBe(0);
  await tight.dispose();
});

it('keeps the KV state in 4 bits where it is asked to, and says what they would have room for', async () => {
  const { kvBytesPerToken, window } = model.engine.model;
  const kvBudgetBytes = Math.floor(kvBytesPerToken * window * 0.35);
  const eight = await openModel(builtInModel, { device: 'cpu', kvFormat: 'auto', kvBudgetBytes });
  expect(eight.engine.window).toBeLessThan(window);
  const room = eight.engine.windowIn4Bits;
  expect(room).toBe(window);
  await eight.dispose();

  const four = await openModel(builtInModel, { device: 'cpu', kvFormat: 'q4', kvBudgetBytes });
  expect(four.engine.window).toBe(room);
  expect(four.engine.windowIn4Bits).toBe(0);
  expect(four.engine.model.kvLayout).toContain('q4');
  const context = await four.engine.createContext();
  await context.extend(prompt());
  const { tokens } = await context.generate({ maxTokens: 12, stopTokens: [] });
  const exact = await model.engine.createContext();
  await exact.extend(prompt());
  expect(tokens.slice(0, 4)).toEqual(
    (await exact.generate({ maxTokens: 12, stopTokens: [] })).tokens.slice(0, 4),
  );
  await exact.dispose();
  await four.dispose();
});

it('keeps the KV state in q8 where 8-bit floats are asked for and there is no GPU for them, and says so', async () => {
  const floats = await openModel(builtInModel, { device: 'cpu', kvFormat: 'fp8' });
  expect(floats.engine.model.kvLayout).toContain('q8');
  expect(floats.engine.device.note).toContain('compute capability 8.9');
  await floats.dispose();
});

it('refuses a setting that does not exist, with a sentence', async () => {
  const refused = { code: 'invalid_argument' };
  await expect(openModel(builtInModel, { kvFormat: 'q3' as 'q8' })).rejects.toMatchObject(refused);
  const prefill = { mode: 'quick' as 'auto' };
  await expect(openModel(builtInModel, { prefill })).rejects.toMatchObject(refused);
});

it('rates a reading by what it reads itself, not by what is held already', async () => {
  const line = model.tokenizer.encodeWithSpecials('A parser makes a tree of a text.\n');
  const text = Int32Array.from({ length: 2560 }, (_, i) => line[i % line.length]!);
  await context.truncate(0);
  await context.extend(text.subarray(0, 2304));
  const other = await model.engine.createContext();
  const seen: PrefillProgress[] = [];
  const { reused, seconds } = await other.extend(text, { onProgress: (progress) => seen.push(progress) });
  await other.dispose();
  expect(reused).toBe(2304);
  expect(seen[0]).toMatchObject({ done: reused, tokensPerSecond: 0 });
  // Counted by both, it would be ten times as much.
  expect(seen.at(-1)!.tokensPerSecond * seconds).toBeLessThan(2 * (text.length - reused));
});

it('counts what recurrent layers see again as part of a reading', async () => {
  const recurrent = await openNativeEngine(path.join(root, 'test/fixtures/native/qwen35.Q8_0.gguf'));
  const reading = await recurrent.createContext();
  const text = Int32Array.from({ length: 300 }, (_, i) => (7 * i) % 96);
  await reading.extend(text);
  await reading.truncate(200);
  const seen: PrefillProgress[] = [];
  const { tokens } = await reading.extend(text.subarray(0, 5), {
    onProgress: (progress) => seen.push(progress),
  });
  expect(tokens).toBe(5);
  expect(seen[0]).toMatchObject({ done: 0, total: 205, tokensPerSecond: 0 });
  expect(seen.find(({ done }) => done > 0 && done < 205)).toMatchObject({ done: 200, total: 205 });
  expect(seen.at(-1)).toMatchObject({ done: 205, total: 205 });
  await reading.dispose();
  await recurrent.dispose();
});

it('names no density of layers that see a span of tokens alone', async () => {
  const sliding = await openNativeEngine(path.join(root, 'test/fixtures/native/gpt_oss.MXFP4.gguf'), {
    prefill: { mode: 'adaptive' },
  });
  const reading = await sliding.createContext();
  const text = Int32Array.from({ length: 400 }, (_, i) => (7 * i) % 96);
  // Of two layers one slides, and the last counts in no model.
  expect(await reading.extend(text, { sparse: true })).toMatchObject({ tokens: 400 });
  const { density, coveredMass, layers } = await reading.extend(text.subarray(0, 80), { sparse: true });
  expect({ density, coveredMass, layers }).toEqual({});
  await reading.dispose();
  await sliding.dispose();
});

it('runs on the CPU where there is no code for a GPU, and says so unless that was asked for', async () => {
  const opened = (device: EngineOptions['device']) => openNativeEngine(builtInModel, { device });
  await onPlatform('win32', async () => {
    await expect(opened('cuda')).rejects.toMatchObject({
      code: 'invalid_argument',
      message: expect.stringMatching(
        /On Windows .* CPU; inside WSL .* Choose the device auto or cpu\.$/,
      ) as string,
    });
    for (const [device, note] of [
      ['auto', whyNoGpu()],
      ['cpu', ''],
    ] as const) {
      const engine = await opened(device);
      expect(engine.device).toMatchObject({ kind: 'cpu', note });
      await engine.dispose();
    }
  });
  expect(whyNoGpu()).toBeUndefined();
  expect(await onPlatform('darwin', whyNoGpu)).toMatch(/^On macOS .* CPU\.$/);
});
