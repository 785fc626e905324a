/** The whole way from a folder on disk to an answer, on the built-in model. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { Session } from '../../../server/answers/session';
import type { Engine } from '../../../server/engine/engine';
import { openNativeEngine, readModelMetadata } from '../../../server/engine/nativeEngine';
import { createTokenizer } from '../../../server/tokenizer/tokenizer';
import { vocabularyFromGguf } from '../../../server/tokenizer/vocabulary';
import { builtInModel, reference, unpackReference } from '../reference';

let engine: Engine;
let session: Session;

beforeAll(async () => {
  engine = await openNativeEngine(builtInModel, { precision: 'f32', kvFormat: 'f32' });
  const tokenizer = createTokenizer(vocabularyFromGguf(readModelMetadata(builtInModel)));
  session = await Session.create(engine, tokenizer, unpackReference());
});

afterAll(() => engine.dispose());

describe('a session', () => {
  it('keeps what a stopped reading has done', async () => {
    const stop = new AbortController();
    const reading = session.prefill(() => stop.abort(), stop.signal);
    await expect(reading).rejects.toMatchObject({ code: 'cancelled' });
    const { prefilledTokens } = await engine.counters();
    expect(prefilledTokens).toBeGreaterThan(0);
    expect((await session.prefill()).reused).toBe(prefilledTokens);
    expect((await engine.counters()).prefilledTokens).toBe(reference.packedTokens.length);
  });

  it("gives the reference's answers, each for its own tokens only", async () => {
    for (const { question, turnTokens, text } of reference.questions) {
      const before = await engine.counters();
      const { answer, stats } = await session.ask(question);
      expect(answer).toBe(text);
      expect(stats.reusedTokens).toBe(reference.packedTokens.length);
      expect((await engine.counters()).prefilledTokens - before.prefilledTokens).toBe(turnTokens.length);
    }
  });

  it('links a symbol to its line', async () => {
    const { citations } = await session.ask('where is palette?');
    expect(citations).toEqual([]); // the answer names a place that does not exist: no link
    const { citations: real } = await session.ask('What is in `ui.mjs`?');
    expect(real).toMatchObject([{ path: 'ui.mjs', text: '[ui.mjs]' }]);
  });

  it('refuses a question that does not fit, with numbers', async () => {
    await expect(session.ask('why '.repeat(70_000))).rejects.toMatchObject({ code: 'question_too_long' });
  });
});
