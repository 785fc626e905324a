/** What a model says, or a folder is called, must not become a link in a notification. */
import { expect, it } from 'vitest';
import { plainText } from '../../../extension/plainText';

/** The editor's (vs/base/common/linkedText.ts). */
const link = /\[([^\]]+)\]\(((?:https?:\/\/|command:|file:)[^)\s]+)(?: (["'])(.+?)(\3))?\)/i;

it.each([
  'Read [this](command:workbench.action.terminal.new).',
  '[[x]](https://example.com "title")',
  '[a](b](command:x)',
  '](](command:x)](file:///etc/passwd)',
])('%s stays text', (text) => {
  expect(plainText(text)).not.toMatch(link);
  expect(plainText(text).replaceAll(' ', '')).toBe(text.replaceAll(' ', ''));
});

it('changes nothing else', () => {
  const text = 'Sorts `rows[0]` (see [src/a.ts#sort]).';
  expect(plainText(text)).toBe(text);
});
