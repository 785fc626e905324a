import MarkdownIt from 'markdown-it';
import { expect, it } from 'vitest';
import type { Turn } from '../../../extension/chat/messages';
import { chatMarkdown, withFenceClosed, withNothingToLoad } from '../../../extension/chatMarkdown';
import { markdown } from '../../../extension/chat/markdown';

const turn = (question: string, answer: string, more: Partial<Turn> = {}): Turn => ({
  id: question,
  question,
  answer,
  state: 'done',
  citations: [],
  ...more,
});
/** What a reader of the document takes for its headings. */
const headings = (document: string) => {
  const tokens = markdown.parse(document, { citations: new Map(), missing: new Map() });
  return tokens.flatMap(({ type }, i) => (type === 'heading_open' ? tokens[i + 1]!.content : []));
};

it('has each question as a heading, whatever was cut or pasted before it', () => {
  const answers = [
    '```py\ndef cut(',
    '~~~\ncut',
    '1. First:\n\n   ```py\n   def cut(',
    '- First:\n  ```py\n  def left_open(\n\nThat is all.',
    '> ```\n> cut',
    '````md\n```\nx\n```\n',
    'Of ```` one line ```` alone.',
    '```py\nwhole\n```',
  ];
  const questions = [
    'Why?\n```\npasted',
    '```py\nx = 1\n```\nWhat is this?',
    'What of ```` x ```` this?\nPlease.',
  ];
  const turns = [
    ...answers.map((answer, i) => turn(`Q${i}`, answer)),
    ...questions.map((q) => turn(q, 'A.')),
  ];
  const document = chatMarkdown([...turns, turn('Last', 'A.')]);
  expect(headings(document)).toEqual([
    ...answers.map((_, i) => `Q${i}`),
    'Why?',
    'Question',
    'What of ```` x ```` this?',
    'Last',
  ]);
});

it('keeps the words of an answer, closes its code, and says what an answer failed of', () => {
  expect(withFenceClosed('a\n```\nb\n```\n')).toBe('a\n```\nb\n```\n');
  expect(withFenceClosed('  ```py\nb')).toBe('  ```py\nb\n  ```');
  expect(chatMarkdown([turn('```py\nx\n```\nWhat?', 'A.')])).toBe(
    '## Question\n\n```py\nx\n```\nWhat?\n\nA.\n',
  );
  const failed = turn('Where?', '', { state: 'failed', error: 'No room.' });
  expect(chatMarkdown([turn('Who?', ' I. '), failed])).toBe('## Who?\n\nI.\n\n## Where?\n\nNo room.\n');
});

/** As a previewer does that takes pictures and HTML. */
const preview = new MarkdownIt({ html: true });

it.each([
  '![a](https://example.com/a.png)',
  'Of `a ![a](https://example.com/a.png)',
  '`\n\n![a](https://example.com/a.png)\n\n`',
  '`` a ` ![a](https://example.com/a.png)',
  '> - ![a][b]\n\n[b]: https://example.com/a.png',
  '# ![a](https://example.com/a.png)',
  '| a |\n|-|\n| ![a](https://example.com/a.png) |\n\n`',
  '<img src="https://example.com/a.png">',
  'a <IMG src=https://example.com/a.png> b',
  '<!-- -->\n<div>\n\n![a](https://example.com/a.png)\n</div>',
  'a\n<svg/onload=x>',
  '\\![a](https://example.com/a.png) \\\\![a](https://example.com/a.png)',
  '\\`![a](https://example.com/a.png)`',
  'a `\n<div>\n\n![a](https://example.com/a.png)',
  '> a `\n> <div>` b',
  '| a | b |\n|-|-|\n| ` | ![a](https://example.com/a.png) ` |',
  '![[a]](https://example.com/a.png) !![a](https://example.com/a.png)',
])('has no picture and no HTML of an answer: %s', (answer) => {
  expect(preview.render('<b>![a](b)')).toMatch(/<b>.*<img/);
  expect(preview.render(chatMarkdown([turn('Q', answer)]))).not.toMatch(/<(img|svg|div|!--)/i);
});

it('leaves code and links of an answer as they are', () => {
  const answer =
    'See `List<a>` and ``![`` at [a.ts#f] or [x](https://example.com), a < b:\n\n```html\n<img src=a>\n![a](b)\n```\n\n    <b>\n\n- ~~~\n  <i>\n  ~~~';
  expect(withNothingToLoad(answer)).toBe(answer);
  expect(withNothingToLoad('A List<String>, `x<y>`')).toBe('A List\\<String>, `x<y>`');
});
