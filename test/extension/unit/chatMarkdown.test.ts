import { expect, it } from 'vitest';
import type { Turn } from '../../../extension/chat/messages';
import { chatMarkdown, withFenceClosed } from '../../../extension/chatMarkdown';
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
