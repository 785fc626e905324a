import { describe, expect, it } from 'vitest';
import { Chat } from '../../../extension/chatState';
import type { AskResult } from '../../../server/protocol';
import type { ToWebview } from '../../../extension/chat/messages';

const result = (answer: string): AskResult => ({
  conversationId: 'c',
  answer,
  citations: [],
  missing: [],
  finish: 'stop',
  stats: {
    files: 3,
    skipped: 1,
    promptTokens: 10,
    reusedTokens: 5,
    prefillSeconds: 1,
    firstTokenSeconds: 1,
    decodeTokensPerSecond: 20,
    answerTokens: 2,
    device: 'd',
    model: 'm',
  },
});

function chat(saved?: ConstructorParameters<typeof Chat>[3]) {
  const messages: ToWebview[] = [];
  return {
    messages,
    chat: new Chat(
      (message) => messages.push(message),
      true,
      () => true,
      saved,
    ),
  };
}

describe('Chat', () => {
  it('tells the panel of every change, in order', () => {
    const { chat: it, messages } = chat();
    it.begin('1', 'Where?');
    const { busy, state } = it;
    expect([busy, state.turns[0]?.progress]).toEqual([true, { message: 'Starting' }]);
    it.progress('1', { kind: 'context', files: 3, skipped: 1, tokens: 5, window: 10 });
    it.progress('1', { kind: 'phase', phase: 'reading', message: 'Reading' });
    // There is nothing to show yet but what happens.
    it.text('1', '');
    expect(it.turn('1')).toMatchObject({ state: 'waiting', progress: { message: 'Reading' } });
    it.text('1', 'In ');
    expect(it.turn('1')?.progress).toBeUndefined();
    it.text('1', 'a.py.');
    expect(it.busy).toBe(true);
    const { conversationId, ...shown } = { ...result('In a.py.'), finish: 'window', full: 'turns' } as const;
    it.done('1', { conversationId, ...shown });
    expect(it.busy).toBe(false);
    expect(messages.map(({ type }) => type)).toEqual([
      'turn',
      'turn',
      'turn',
      'turn',
      'text',
      'text',
      'turn',
    ]);
    expect(messages.map(({ seq }) => seq)).toEqual([1, 2, 3, 4, 5, 6, 7]);
    expect(it.state.turns).toMatchObject([{ ...shown, state: 'done', context: { files: 3, skipped: 1 } }]);
  });

  it('a panel that was closed in between gets the whole state', () => {
    const { chat: it, messages } = chat();
    it.begin('1', 'Where?');
    it.text('1', 'In a.py');
    it.snapshot();
    expect(messages.at(-1)).toMatchObject({ type: 'snapshot', state: { turns: [{ answer: 'In a.py' }] } });
  });

  it('gives the server what was answered, and not what was stopped or failed', () => {
    const { chat: it } = chat();
    const begin = (id: string, question: string) => {
      it.begin(id, question);
      it.progress(id, { kind: 'phase', phase: 'reading', message: 'Reading' });
    };
    begin('1', 'Where?');
    it.done('1', result('There.'));
    begin('2', 'What?');
    it.stopped('2');
    begin('3', 'Why?');
    it.failed('3', 'No model.');
    expect(it.state.turns.map(({ progress }) => progress)).toEqual([undefined, undefined, undefined]);
    expect(it.asked).toEqual({ conversationId: 'c', history: [{ question: 'Where?', answer: 'There.' }] });
    expect(it.markdown()).toBe('## Where?\n\nThere.\n\n## What?\n\n\n\n## Why?\n\nNo model.\n');
  });

  it('takes what an answer was read from a moment later, keeps it, and exports it', () => {
    const { chat: it, messages } = chat();
    const sources = [
      { path: 'net/a.py', uri: 'file:///r/net/a.py', share: 0.714, span: { startLine: 2, endLine: 4 } },
      { path: 'b.py', uri: 'file:///r/b.py', share: 0.2, span: { startLine: 7, endLine: 7 } },
      { path: 'c.py', uri: 'file:///r/c.py', share: 0.086 },
    ];
    it.begin('1', 'Where?');
    it.sources('1', sources);
    expect(it.turn('1')?.sources).toBeUndefined();
    it.done('1', result('There.'));
    it.sources('1', sources);
    // Nothing but this: what is shown of the answer stays.
    expect(messages.at(-1)).toEqual({ type: 'sources', seq: 3, turnId: '1', sources });
    it.sources('2', sources);
    expect(messages).toHaveLength(3);
    expect(it.markdown()).toBe(
      '## Where?\n\nThere.\n\nLooked at most: `net/a.py:2–4` (71 %), `b.py:7` (20 %), `c.py` (9 %)\n',
    );
    expect(chat(it.saved).chat.turn('1')?.sources).toEqual(sources);
  });

  it('has the places of what was said before it was stopped', () => {
    const { chat: it, messages } = chat();
    const citations = [{ text: '[a.py]', offset: 3, path: 'a.py', uri: 'file:///r/a.py' }];
    const missing = [{ text: '[b.py#x]', why: 'There is no b.py.' }];
    it.begin('1', 'Where?');
    it.text('1', 'In [a.py], not in [b.py#x].');
    it.progress('1', { kind: 'places', citations, missing });
    it.stopped('1');
    expect(messages.at(-1)).toMatchObject({ turn: { state: 'stopped', citations, missing } });
    expect(it.state.turns[0]?.progress).toBeUndefined();
  });

  it('comes back after a restart, with what was under way as stopped', () => {
    const before = chat().chat;
    before.begin('0', 'Who?');
    before.done('0', result('I.'));
    before.begin('1', 'Where?');
    before.text('1', 'In');
    const { chat: after } = chat(before.saved);
    expect(after.busy).toBe(false);
    expect(after.state.turns).toMatchObject([{ state: 'done' }, { state: 'stopped', answer: 'In' }]);
    expect(after.asked.conversationId).toBe('c');
    before.restore();
    before.begin('2', 'What?');
    before.progress('2', { kind: 'phase', phase: 'reading', message: 'Reading' });
    const [turn] = chat(before.saved).chat.state.turns;
    expect(turn).toMatchObject({ state: 'stopped', progress: undefined });
  });

  it('ignores what comes for a turn that was cleared', () => {
    const { chat: it } = chat();
    it.begin('1', 'Where?');
    it.restore();
    it.text('1', 'late');
    it.done('1', result('late'));
    expect(it.state.turns).toEqual([]);
    expect(it.asked).toEqual({ conversationId: undefined, history: [] });
  });

  it('goes on with a chat that was put away in the middle of an answer', () => {
    const { chat: it, messages } = chat();
    it.begin('0', 'Who?');
    it.done('0', result('I.'));
    it.begin('1', 'Where?');
    it.text('1', 'In');
    const putAway = it.saved;
    it.restore();
    expect(it.asked).toEqual({ conversationId: undefined, history: [] });
    expect(messages.at(-1)).toMatchObject({ type: 'snapshot', state: { turns: [] } });
    it.restore(putAway);
    expect(it.busy).toBe(false);
    expect(it.state.turns).toMatchObject([{ state: 'done' }, { state: 'stopped', answer: 'In' }]);
    expect(messages.at(-1)).toMatchObject({ type: 'snapshot', state: { turns: it.state.turns } });
    expect(it.asked).toMatchObject({ conversationId: 'c', history: [{ question: 'Who?' }] });
  });

  it('keeps 200 turns, without one that is asked again', () => {
    const { chat: it, messages } = chat();
    for (let i = 0; i < 201; i++) it.begin(String(i), 'Where?');
    expect([it.state.turns.length, it.state.turns[0]?.id]).toEqual([200, '1']);
    it.remove('1');
    expect(it.state.turns[0]?.id).toBe('2');
    expect(messages.at(-1)).toMatchObject({ type: 'snapshot', state: { turns: it.state.turns } });
  });

  it('tells of the status and of the note that was dismissed, and tells them a panel that opens later', () => {
    const { chat: it, messages } = chat();
    const status = { health: 'warning', phase: 'ready', message: 'No room' } as const;
    it.setStatus(status);
    expect(messages.at(-1)).toMatchObject({ type: 'status', status });
    it.dismissBuiltInNote();
    expect(messages.at(-1)).toMatchObject({ type: 'snapshot', state: { status, builtInNote: false } });
  });
});
