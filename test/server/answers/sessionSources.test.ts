/** What a session says an answer was read from, on the built-in model. */
import { mkdtempSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { Conversation } from '../../../server/answers/conversation';
import { rootOf, Session } from '../../../server/answers/session';
import { openModel, type OpenModel } from '../../../server/models/openModel';
import { builtInModel, writeFolder } from '../reference';

let model: OpenModel;

beforeAll(async () => {
  model = await openModel(builtInModel, { precision: 'f32', kvFormat: 'f32' });
});

afterAll(() => model.dispose());

describe('the sources of an answer', () => {
  const folder = mkdtempSync(path.join(tmpdir(), 'longview-session-'));
  const filler = (name: string) => `${name} = compute(${name})\n`.repeat(40);
  writeFolder(folder, [
    ['net/retry.py', `${filler('delay')}\n\ndef retry_delay(attempt):\n    return 2**attempt\n`],
    ['net/session.py', filler('session')],
    ['orders/limits.py', 'MAX_ORDERS = 12\nMIN_ORDERS = 1\n'],
  ]);
  const where = 'Where is `retry_delay` defined?';
  const value = 'What is the value of `MAX_ORDERS`?';
  let own: Session;
  beforeAll(async () => {
    own = await Session.create(model, [rootOf(folder)]);
  });
  afterAll(() => own.dispose());

  it('begin with the file that it names, and the lines of the definition', async () => {
    const { answer, conversationId } = await own.ask({ question: where });
    expect(answer).toContain('net/retry.py');
    const sources = await own.sources(conversationId);
    expect(sources![0]).toMatchObject({ path: 'net/retry.py', span: { startLine: 43, endLine: 43 } });
    expect(sources![0]!.share).toBeGreaterThan(0.5);
    expect(await own.sources(conversationId)).toEqual(sources);

    // Of a follow-up, its own; that of a conversation which is not known, none.
    await own.ask({ question: value, conversationId });
    const [first] = (await own.sources(conversationId))!;
    expect(first).toMatchObject({ path: 'orders/limits.py', span: { startLine: 1, endLine: 1 } });
    expect(await own.sources('from another life')).toBeUndefined();
  });

  it('are the lines of an edited file as it is now', async () => {
    writeFolder(folder, [['orders/limits.py', '# edited\n\nMAX_ORDERS = 13\nMIN_ORDERS = 1\n']]);
    const { answer, conversationId } = await own.ask({ question: value });
    expect(answer).toContain('13');
    expect(own.repository!.overlayTokens).toBeGreaterThan(0);
    const [first] = (await own.sources(conversationId))!;
    expect(first).toMatchObject({ path: 'orders/limits.py', span: { startLine: 3, endLine: 3 } });
    // What is packed since does not move them.
    writeFolder(folder, [['net/session.py', filler('again')]]);
    await own.pack();
    expect((await own.sources(conversationId))![0]).toEqual(first);
  });

  it('are given up for the next question, which is answered as ever', async () => {
    const prompt = model.format.system(own.repository!.tokens);
    const conversation = new Conversation(model, own.state);
    const { answer } = await conversation.ask(prompt, where, { maxTokens: 64 });
    const looking = [conversation.focus(), conversation.focus()];
    const next = conversation.ask(prompt, value, { maxTokens: 64 });
    // Begun behind that question: it would be of another answer.
    const late = conversation.focus();
    expect(await Promise.all([...looking, late])).toEqual([undefined, undefined, undefined]);
    expect((await next).answer).toContain('orders/limits.py');
    expect(await conversation.focus()).toHaveLength((await next).promptTokens - 1);
    await conversation.dispose();
    expect(await conversation.focus()).toBeUndefined();
    expect((await own.ask({ question: where })).answer).toBe(answer);
  });

  it('are given up for the question of another chat too', async () => {
    const { conversationId } = await own.ask({ question: where });
    let looking: ReturnType<typeof own.sources> | undefined;
    const onPhase = (phase: string) => {
      if (phase === 'reading') looking = own.sources(conversationId);
    };
    await own.ask({ question: value, onPhase });
    expect(await looking).toBeUndefined();
    expect(await own.sources(conversationId)).toBeDefined();
  });

  it('are none where memory is short, and come back with it', async () => {
    const { kvBytesPerToken } = model.engine.model;
    const tight = await openModel(builtInModel, { kvFormat: 'f32', kvBudgetBytes: 4096 * kvBytesPerToken });
    const short = await Session.create(tight, [rootOf(folder)]);
    const { conversationId } = await short.ask({ question: where });
    const hog = await tight.engine.createContext();
    const fill = async () => {
      for (let i = 0; i < 100; i++)
        await hog.extend(Int32Array.from({ length: 128 }, (_, j) => 1000 + i + j));
    };
    await expect(fill()).rejects.toMatchObject({ code: 'out_of_memory' });
    expect(await short.sources(conversationId)).toBeUndefined();
    await hog.dispose();
    expect((await short.sources(conversationId))![0]!.path).toBe('net/retry.py');
    await short.dispose();
    await tight.dispose();
  });

  it('are none of an answer that was stopped, and stop when they are told to', async () => {
    const { conversationId } = await own.ask({ question: where });
    const told = own.sources(conversationId, AbortSignal.abort());
    await expect(told).rejects.toMatchObject({ code: 'cancelled' });
    const stop = new AbortController();
    const { signal } = stop;
    const stopped = own.ask({ question: value, conversationId, signal, onText: () => stop.abort() });
    await expect(stopped).rejects.toMatchObject({ code: 'cancelled' });
    expect(await own.sources(conversationId)).toBeUndefined();
  });
});
