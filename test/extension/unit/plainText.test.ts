/** What a model says, or a folder is called, must not become a link in a notification, nor an icon. */
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

it.each(['What is $(trash)?', '$(loading~spin).gguf', '\\$(zap)', '$$(a)'])('%s holds no icon', (text) => {
  expect(plainText(text)).not.toMatch(/\$\([\w-]/);
  expect(plainText(text).replaceAll('\u200b', '')).toBe(text);
});

it('changes nothing else', () => {
  const text = 'Sorts `rows[0]` (see [src/a.ts#sort]).';
  expect(plainText(text)).toBe(text);
});
