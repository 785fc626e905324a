/** The pick list of earlier chats. */
import { beforeEach, expect, it, vi } from 'vitest';
import { ChatHistory } from '../../../extension/chatHistory';

const picker = vi.hoisted(() => ({
  items: [] as { id: string; label: string; detail?: string }[],
  selectedItems: [],
  show() {},
  hide: () => (picker.hidden = true),
  hidden: false,
  dispose() {},
  onDidTriggerItemButton: (press: (on: { item: { id: string } }) => void) => (picker.deleteOne = press),
  onDidTriggerButton: (press: () => void) => (picker.deleteAll = press),
  deleteOne: (_: { item: { id: string } }) => {},
  deleteAll: () => {},
  onDidAccept: (accept: () => void) => accept(),
  onDidHide() {},
}));

const warning = vi.hoisted(() => ({ said: [] as string[], choice: undefined as string | undefined }));

vi.mock('vscode', () => ({
  ThemeIcon: class {},
  window: {
    createQuickPick: () => picker,
    showWarningMessage: (question: string) => {
      warning.said.push(question);
      return Promise.resolve(warning.choice);
    },
  },
}));

let chats: unknown[] = [];
const history = new ChatHistory({
  get: () => chats,
  update: (_: string, kept: []) => (chats = kept),
} as never);
const add = (id: string) =>
  history.add({ turns: [{ question: id }] as never, conversationId: `c ${id}` }, id);
const listed = () => picker.items.map(({ id }) => id);

beforeEach(() => (chats = []));

it('keeps the last fifty chats that have a turn, until one is taken', () => {
  for (let i = 0; i < 51; i++) add(String(i));
  history.add({ turns: [] }, 'empty');
  expect(history.take('0')).toBeUndefined();
  expect(history.take('1')).toMatchObject({ turns: [{ question: '1' }], conversationId: 'c 1' });
  expect(history.take('1')).toBeUndefined();
  expect(chats).toHaveLength(49);
});

it('deletes one chat, or all when that is meant', async () => {
  for (const id of ['a', 'b', 'c']) add(id);
  await history.pick();
  expect(listed()).toEqual(['c', 'b', 'a']);
  picker.deleteOne({ item: { id: 'b' } });
  expect(listed()).toEqual(['c', 'a']);
  expect(chats).toHaveLength(2);
  picker.deleteAll();
  await Promise.resolve();
  expect(picker.hidden).toBe(true);
  expect(warning.said).toEqual(['Delete all 2 earlier chats of this workspace?']);
  expect(chats).toHaveLength(2);
  warning.choice = 'Delete';
  picker.deleteAll();
  await vi.waitFor(() => expect(chats).toEqual([]));
  // Nothing is left to ask about.
  picker.deleteAll();
  expect(warning.said).toHaveLength(2);
});

it('shows questions as they were typed, with no icon in them', async () => {
  const question = 'What is $(trash) in the Makefile?';
  add(question);
  await history.pick();
  const { label } = picker.items[0]!;
  expect(label).not.toContain('$(');
  expect(label.replace('\u200b', '')).toBe(question);
});

it('says of every chat how long it is and when it was, below the first line of its first question', async () => {
  const chats = [{ id: 'a', time: 0, turns: [{ question: `${'Why? '.repeat(50)}\n\`\`\`\ncode\n\`\`\`` }] }];
  await new ChatHistory({ get: () => chats, update: () => undefined } as never).pick();
  const { label, detail } = picker.items[0]!;
  expect(label).toBe('Why? '.repeat(50));
  expect(detail).toMatch(/^1 question · /);
});
