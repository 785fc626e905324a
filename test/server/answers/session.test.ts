/** The whole way from a folder on disk to an answer, on the built-in model. */
import { mkdtempSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { PrefillProgress } from '../../../server/engine/engine';
import { Conversation } from '../../../server/answers/conversation';
import { RepositoryState } from '../../../server/answers/repositoryState';
import { rootOf, Session } from '../../../server/answers/session';
import { openModel, type OpenModel } from '../../../server/models/openModel';
import { builtInModel, reference, unpackReference, writeFolder } from '../reference';

let model: OpenModel;
let session: Session;

beforeAll(async () => {
  model = await openModel(builtInModel, { precision: 'f32', kvFormat: 'f32' });
  session = await Session.create(model, [rootOf(unpackReference())]);
});

afterAll(() => model.dispose());

describe('a session', () => {
  it('keeps what a stopped reading has done', async () => {
    const stop = new AbortController();
    const reading = session.prefill({ onProgress: () => stop.abort(), signal: stop.signal });
    await expect(reading).rejects.toMatchObject({ code: 'cancelled' });
    const { prefilledTokens } = await model.engine.counters();
    expect(prefilledTokens).toBeGreaterThan(0);
    expect((await session.prefill()).reused).toBe(prefilledTokens);
    expect((await model.engine.counters()).prefilledTokens).toBe(reference.packedTokens.length);
  });

  it("gives the reference's answers, each for its own tokens only", async () => {
    for (const { question, turnTokens, text } of reference.questions) {
      const before = await model.engine.counters();
      const { answer, stats } = await session.ask({ question });
      expect(answer).toBe(text);
      expect(stats.reusedTokens).toBe(reference.packedTokens.length);
      expect((await model.engine.counters()).prefilledTokens - before.prefilledTokens).toBe(
        turnTokens.length,
      );
    }
  });

  it('links a symbol to its line', async () => {
    // The answer names a place that does not exist: no link.
    const { citations, missing } = await session.ask({ question: 'where is palette?' });
    expect(citations).toEqual([]);
    expect(missing).toMatchObject([{ why: expect.stringContaining('does not contain') as string }]);
    const { citations: real } = await session.ask({ question: 'What is in `ui.mjs`?' });
    expect(real).toMatchObject([{ path: 'ui.mjs', text: '[ui.mjs]' }]);
  });

  it('says what was visited of a long repository, and of a short one that all was', async () => {
    const folder = mkdtempSync(path.join(tmpdir(), 'longview-long-'));
    const table = (part: number) =>
      Array.from(
        { length: 30 },
        (_, i) => `def row_${part}_${i}(cells):\n    return cells[${i}:${i + part}]\n`,
      );
    writeFolder(
      folder,
      Array.from({ length: 9 }, (_, part) => [`table/part_${part}.py`, table(part).join('\n')]),
    );
    const prefill = { mode: 'auto', target: 'balanced' } as const;
    const sparse = await openModel(builtInModel, { device: 'cpu', prefill });
    try {
      const long = await Session.create(sparse, [rootOf(folder)]);
      const { stats } = await long.ask({ question: 'Where is `row_3_4` defined?' });
      expect(stats.promptTokens).toBeGreaterThan(4096);
      expect(stats.density).toBeGreaterThan(0.1);
      expect(stats.density).toBeLessThan(1);
      expect(stats.coveredMass).toBeGreaterThan(0.5);
      expect(stats.coveredMass).toBeLessThanOrEqual(1);
    } finally {
      await sparse.dispose();
    }
    const { stats } = await session.ask({ question: reference.questions[0]!.question });
    expect(stats).toMatchObject({ density: 1 });
    expect(stats.coveredMass).toBeUndefined();
  });

  it('goes on with a conversation for the new turn alone', async () => {
    const [first, second] = reference.questions;
    const { conversationId, stats } = await session.ask({ question: first!.question });
    const before = await model.engine.counters();
    const followUp = await session.ask({ question: second!.question, conversationId });
    const after = await model.engine.counters();
    expect(followUp.conversationId).toBe(conversationId);
    // <|im_end|>, a line feed, and the turn.
    expect(after.prefilledTokens - before.prefilledTokens).toBe(second!.turnTokens.length + 2);
    expect(followUp.stats.reusedTokens).toBe(stats.promptTokens + stats.answerTokens);

    // A server that forgot it reads the turns again, and comes to the same state.
    const again = await session.ask({
      question: second!.question,
      conversationId: 'from another life',
      history: [{ question: first!.question, answer: first!.text }],
    });
    expect(again.answer).toBe(followUp.answer);
    expect(again.stats.promptTokens).toBe(followUp.stats.promptTokens);
  });

  it('keeps a conversation that was stopped in the middle of an answer', async () => {
    const [first, second] = reference.questions;
    const { conversationId } = await session.ask({ question: first!.question });
    const stop = new AbortController();
    const stopped = session.ask({
      question: second!.question,
      conversationId,
      signal: stop.signal,
      onText: () => stop.abort(),
    });
    await expect(stopped).rejects.toMatchObject({ code: 'cancelled' });
    const fresh = await session.ask({ question: first!.question });
    const expected = await session.ask({
      question: second!.question,
      conversationId: fresh.conversationId,
    });
    expect((await session.ask({ question: second!.question, conversationId })).answer).toBe(expected.answer);
  });

  it('takes the turns of a conversation one after the other, whoever asks before the last is answered', async () => {
    const [first, second, third] = reference.questions;
    const ask = (question: string, conversationId?: string) => session.ask({ question, conversationId });
    const { conversationId: id } = await ask(first!.question);
    const together = await Promise.all([ask(second!.question, id), ask(third!.question, id)]);
    const { conversationId: other } = await ask(first!.question);
    const inTurn = [await ask(second!.question, other), await ask(third!.question, other)];
    expect(together.map(({ answer }) => answer)).toEqual(inTurn.map(({ answer }) => answer));
    expect(together[1].stats.promptTokens).toBe(inTurn[1]!.stats.promptTokens);
  });

  it('answers two chats and a hover at once from one state, each for its own tokens, as it does alone', async () => {
    const [first, second, third] = reference.questions;
    const before = await model.engine.counters();
    const [one, two, hover] = await Promise.all([
      session.ask({ question: first!.question }),
      session.ask({ question: second!.question }),
      session.aside(third!.question, 256),
    ]);
    expect([one.answer, two.answer, hover]).toEqual([first!.text, second!.text, third!.text]);
    const own = [first, second, third].reduce((sum, turn) => sum + turn!.turnTokens.length, 0);
    expect((await model.engine.counters()).prefilledTokens - before.prefilledTokens).toBe(own);
  });

  it('ends an answer also when more chats begin than are kept, and frees what it leaves', async () => {
    const folder = mkdtempSync(path.join(tmpdir(), 'longview-chats-'));
    writeFolder(folder, [['limit.py', 'LIMIT = 17\n']]);
    const own = await Session.create(model, [rootOf(folder)], { maxAnswerTokens: 8 });
    const ask = (onText?: () => void) => own.ask({ question: 'What is the value of `LIMIT`?', onText });
    const alone = await ask();
    const chats: ReturnType<typeof ask>[] = [];
    const begin = () => {
      while (chats.length < 9) chats.push(ask());
    };
    expect((await ask(begin)).answer).toBe(alone.answer);
    await Promise.all(chats.splice(0));
    const { kvPagesUsed } = await model.engine.counters();
    begin();
    for (const { answer } of await Promise.all(chats)) expect(answer).toBe(alone.answer);
    expect((await model.engine.counters()).kvPagesUsed).toBe(kvPagesUsed);
    await own.dispose();
  });

  it('keeps the state of a chat when more first questions are stopped than chats are kept', async () => {
    const folder = mkdtempSync(path.join(tmpdir(), 'longview-chats-'));
    writeFolder(folder, [['limit.py', 'LIMIT = 17\n']]);
    const own = await Session.create(model, [rootOf(folder)], { maxAnswerTokens: 8 });
    const question = 'What is the value of `LIMIT`?';
    const { conversationId, stats } = await own.ask({ question });
    const { kvPagesUsed } = await model.engine.counters();
    for (let i = 0; i < 8; i++) {
      const stop = new AbortController();
      const stopped = own.ask({ question, signal: stop.signal, onText: () => stop.abort() });
      await expect(stopped).rejects.toMatchObject({ code: 'cancelled' });
    }
    await expect.poll(async () => (await model.engine.counters()).kvPagesUsed).toBe(kvPagesUsed);
    const next = await own.ask({ question, conversationId });
    expect(next.stats.reusedTokens).toBe(stats.promptTokens + stats.answerTokens);
    await own.dispose();
  });

  it('keeps the state of the chats that were used last, not of those that were begun last', async () => {
    const folder = mkdtempSync(path.join(tmpdir(), 'longview-chats-'));
    writeFolder(folder, [['limit.py', 'LIMIT = 17\n']]);
    const own = await Session.create(model, [rootOf(folder)], { maxAnswerTokens: 2 });
    const ask = (conversationId?: string) =>
      own.ask({ question: 'What is the value of `LIMIT`?', conversationId });
    const [first, second] = [await ask(), await ask()];
    for (let i = 2; i < 8; i++) await ask();
    const again = await ask(first.conversationId);
    await ask();
    const reused = async ({ conversationId }: typeof first) => (await ask(conversationId)).stats.reusedTokens;
    expect(await reused(first)).toBe(again.stats.promptTokens + again.stats.answerTokens);
    expect(await reused(second)).toBe(model.format.system(own.repository!.tokens).length);
    await own.dispose();
  });

  it('makes room for a question by the state of other conversations, which are read again', async () => {
    const folder = mkdtempSync(path.join(tmpdir(), 'longview-room-'));
    writeFolder(folder, [['limits.py', 'MAX_ORDERS = 12\n']]);
    const { kvBytesPerToken } = model.engine.model;
    const tight = await openModel(builtInModel, { kvFormat: 'f32', kvBudgetBytes: 1024 * kvBytesPerToken });
    const short = await Session.create(tight, [rootOf(folder)], { maxAnswerTokens: 32 });
    const ask = (i: number, conversationId?: string) =>
      short.ask({
        question: `${i} ${'Please tell me. '.repeat(60)}Where is \`MAX_ORDERS\`?`,
        conversationId,
      });
    const first = await ask(0);
    for (const i of [1, 2, 3]) expect((await ask(i)).answer).not.toBe('');
    const { stats } = await ask(4, first.conversationId);
    expect(stats.promptTokens).toBeGreaterThan(first.stats.promptTokens + first.stats.answerTokens);
    await short.dispose();
    await tight.dispose();
  });

  it('keeps room for edits where not all files fit', async () => {
    const folder = mkdtempSync(path.join(tmpdir(), 'longview-room-'));
    const names = Array.from({ length: 150 }, (_, i) => `part_${i}.py`);
    const lines = 'value = compute(value)\n'.repeat(8);
    writeFolder(
      folder,
      names.map((name) => [name, lines]),
    );
    const { kvBytesPerToken } = model.engine.model;
    const tight = await openModel(builtInModel, { kvFormat: 'f32', kvBudgetBytes: 8192 * kvBytesPerToken });
    const full = await Session.create(tight, [rootOf(folder)]);
    const packed = async () => {
      const { files, usedTokens, reservedTokens, window } = await full.context();
      return { files: files.map((file) => file.path).sort(), used: usedTokens / (window - reservedTokens) };
    };
    const { files, used } = await packed();
    expect(files.length).toBeLessThan(names.length);
    expect(used).toBeGreaterThan(0.9);
    expect(used).toBeLessThanOrEqual(0.95);
    writeFolder(folder, [[files[0]!, `${lines}LIMIT = 99\n`]]);
    expect(await packed()).toMatchObject({ files });
    expect(full.repository?.overlayTokens).toBeGreaterThan(0);
    await full.dispose();
    await tight.dispose();
  });

  it('makes room by it also for a reading that no question asks for', async () => {
    const folder = mkdtempSync(path.join(tmpdir(), 'longview-room-'));
    const fill = (name: string) =>
      writeFolder(folder, [['limits.py', `${`${name} = compute(${name})\n`.repeat(30)}MAX_ORDERS = 12\n`]]);
    fill('first');
    const { kvBytesPerToken } = model.engine.model;
    const tight = await openModel(builtInModel, { kvFormat: 'f32', kvBudgetBytes: 1536 * kvBytesPerToken });
    const short = await Session.create(tight, [rootOf(folder)], { maxAnswerTokens: 32 });
    const where = 'Where is `MAX_ORDERS`?';
    // Each chat has the files as they were when it was asked.
    const readAfresh = [
      () => short.prefill(),
      () => short.changedFiles().then(() => short.catchUp()),
      () => short.rebase(),
    ];
    for (const [i, read] of readAfresh.entries()) {
      for (const name of [`chat_${i}_one`, `chat_${i}_two`]) {
        fill(name);
        await short.ask({ question: where });
      }
      fill(`after_${i}`);
      await read();
      expect(short.repository?.files[0]?.text).toContain(`after_${i}`);
      expect(short.isRead).toBe(true);
    }
    await short.dispose();
    await tight.dispose();
  });

  it('tells a question how far a reading is that it waits for', async () => {
    const folder = mkdtempSync(path.join(tmpdir(), 'longview-waits-'));
    writeFolder(folder, [['limits.py', `${'waited = compute(waited)\n'.repeat(100)}MAX_ORDERS = 12\n`]]);
    const own = await Session.create(model, [rootOf(folder)], { maxAnswerTokens: 8 });
    const total = model.format.system((await own.pack()).tokens).length;
    const reading = own.catchUp();
    const seen: PrefillProgress[] = [];
    await own.ask({ question: 'Where is `MAX_ORDERS`?', onProgress: (progress) => seen.push(progress) });
    await reading;
    expect(seen.at(-1)).toMatchObject({ done: total, total });
    await own.dispose();
  });

  it("says whether its longest length or the model's window cut an answer off", async () => {
    const { kvBytesPerToken } = model.engine.model;
    const tight = await openModel(builtInModel, { kvFormat: 'f32', kvBudgetBytes: 1024 * kvBytesPerToken });
    const { engine, format, tokenizer } = tight;
    const state = await RepositoryState.create(engine);
    // Whole pages: a chat shares them all.
    const text = tokenizer.encode('def next_value(value):\n    return value + 1\n\n'.repeat(100));
    const prompt = format.system(text.subarray(0, 896 - format.system(new Int32Array()).length));
    const left = (question: string) => engine.window - prompt.length - format.question(question).length;
    let question = 'Where is `next_value` defined?';
    while (left(`Please: ${question}`) > 2) question = `Please: ${question}`;
    const room = left(question);
    for (const [maxTokens, cut] of [
      [room, { finish: 'length', full: undefined, answerTokens: room }],
      [room + 1, { finish: 'window', full: 'repository', answerTokens: room }],
    ] as const) {
      const conversation = new Conversation(tight, state);
      expect(await conversation.ask(prompt, question, { maxTokens })).toMatchObject(cut);
      const next = conversation.ask(prompt, 'And?', { maxTokens });
      const message = expect.stringMatching(/ or leave out files\.$/) as string;
      await expect(next).rejects.toMatchObject({ code: 'question_too_long', message });
      await conversation.dispose();
    }
    // Without the turns before it the second answer would have had its room.
    const chat = new Conversation(tight, state);
    const first = await chat.ask(prompt, 'Where?', { maxTokens: 8 });
    const turns = first.promptTokens + first.answerTokens - prompt.length;
    let second = 'Where is `next_value` defined?';
    while (left(`Please: ${second}`) > turns + 4) second = `Please: ${second}`;
    expect(await chat.ask(prompt, second, { maxTokens: turns })).toMatchObject({
      finish: 'window',
      full: 'turns',
    });
    await chat.dispose();
    await tight.dispose();
  });

  it('stops and waits for a listing of the prompt before it closes', async () => {
    const own = await Session.create(model, [rootOf(unpackReference())]);
    const listing = own.context();
    const closing = own.dispose();
    await expect(listing).rejects.toMatchObject({ code: 'cancelled' });
    await closing;
  });

  it('refuses a question that does not fit, with numbers, and says what helps', async () => {
    const long = (conversationId?: string) =>
      session.ask({ question: 'why '.repeat(70_000), conversationId });
    const refused = (message: RegExp) => ({
      code: 'question_too_long',
      message: expect.stringMatching(message) as string,
    });
    await expect(long()).rejects.toMatchObject(
      refused(
        /\d tokens; beside the repository there is room for \d+\. Ask something shorter, or leave out files\.$/,
      ),
    );
    const { conversationId } = await session.ask({ question: reference.questions[0]!.question });
    // As the panel's button calls it.
    await expect(long(conversationId)).rejects.toMatchObject(
      refused(/ and what was said before .* begin a new chat, or leave out files\.$/),
    );
  });
});
