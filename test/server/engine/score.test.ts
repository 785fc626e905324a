/** Teacher-forced scores through the addon, on a tiny model in float32. */
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Engine } from '../../../server/engine/engine';
import { openNativeEngine } from '../../../server/engine/nativeEngine';
import { root } from '../reference';

const model = path.join(root, 'test/fixtures/native/llama.Q8_0.gguf');
const tokens = Int32Array.from({ length: 200 }, (_, i) => 3 + ((i * 37) % 90));
let engine: Engine;

beforeAll(async () => {
  engine = await openNativeEngine(model, { precision: 'f32', kvFormat: 'f32', device: 'cpu' });
});
afterAll(() => engine.dispose());

describe('score', () => {
  it('gives the NLL and the likeliest token of every place, as the logits of single steps do', async () => {
    const context = await engine.createContext();
    await context.extend(tokens.subarray(0, 1));
    const { nll, top1 } = await context.score(tokens.subarray(1));
    expect(context.length).toBe(tokens.length);
    expect([nll.length, top1.length]).toEqual([199, 199]);

    const step = await engine.createContext();
    for (let i = 0; i < 199; i++) {
      await step.extend(tokens.subarray(i, i + 1));
      const logits = await step.logits();
      const largest = logits.reduce((a, b) => Math.max(a, b));
      const sum = logits.reduce((total, x) => total + Math.exp(x - largest), 0);
      expect(nll[i]).toBeCloseTo(Math.log(sum) + largest - logits[tokens[i + 1]!]!, 4);
      expect(logits[top1[i]!]).toBeGreaterThan(largest - 1e-4);
    }
    // What was scored is there to go on from.
    await context.score(tokens.subarray(0, 1));
    expect(context.length).toBe(201);
    await context.dispose();
    await step.dispose();
  });

  it('refuses what follows nothing, what is no token, and what was stopped before it began', async () => {
    const context = await engine.createContext();
    await expect(context.score(tokens)).rejects.toMatchObject({ code: 'invalid_argument' });
    await context.extend(tokens);
    await expect(context.score(Int32Array.of(-1))).rejects.toMatchObject({ code: 'invalid_argument' });
    const signal = AbortSignal.abort();
    await expect(context.score(tokens, { signal })).rejects.toMatchObject({ code: 'cancelled' });
    expect(context.length).toBe(tokens.length);
    expect(await context.score(new Int32Array())).toEqual({
      nll: new Float64Array(),
      top1: new Int32Array(),
    });
    await context.dispose();
  });
});
