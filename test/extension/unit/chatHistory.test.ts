/** The pick list of earlier chats. */
import { expect, it, vi } from 'vitest';
import { ChatHistory } from '../../../extension/chatHistory';

const picker = vi.hoisted(() => ({
  items: [] as { label: string }[],
  selectedItems: [],
  show() {},
  dispose() {},
  onDidTriggerItemButton() {},
  onDidTriggerButton() {},
  onDidAccept: (accept: () => void) => accept(),
  onDidHide() {},
}));

vi.mock('vscode', () => ({ ThemeIcon: class {}, window: { createQuickPick: () => picker } }));

it('shows questions as they were typed, with no icon in them', async () => {
  const question = 'What is $(trash) in the Makefile?';
  const chats = [{ id: 'a', time: 0, turns: [{ question }] }];
  await new ChatHistory({ get: () => chats, update: () => undefined } as never).pick();
  const { label } = picker.items[0]!;
  expect(label).not.toContain('$(');
  expect(label.replace('\u200b', '')).toBe(question);
});
