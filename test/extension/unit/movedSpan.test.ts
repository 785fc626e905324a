import { expect, it } from 'vitest';
import { movedSpan } from '../../../extension/movedSpan';
import { checkCitations } from '../../../server/answers/citations';

const text =
  'import os\n\n\ndef load(path):\n    return open(path)\n\n\ndef save(path):\n    return open(path)\n}\n';
const files = [{ path: 'io.py', absolutePath: '/w/io.py', tokens: 1, text }];
const place = (answer: string) => checkCitations(answer, files).citations[0]!;
const startLine = (now: string, answer: string) => movedSpan(now, place(answer))?.startLine;

it('finds the lines of a place where they are now', () => {
  const [load, save] = ['[io.py#load]', '`save` [io.py:L8-L9]'];
  expect([startLine(text, load), startLine(text, save)]).toEqual([4, 8]);
  const above = text.replace('import os\n', 'import os\r\nimport sys\r\n\r\nLIMIT = 3\r\n');
  expect([startLine(above, load), startLine(above, save)]).toEqual([7, 11]);
  expect(movedSpan(above, place(save))?.endLine).toBe(12);
  const fewer = text.replace('import os\n\n\n', '');
  expect([startLine(fewer, load), startLine(fewer, save)]).toEqual([1, 5]);
  // The nearest of lines that say the same; indented otherwise too.
  expect(startLine(`${'def load(path):\n'}${'x\n'.repeat(5)}  def load(path):\n`, load)).toBe(1);
});

it('leaves a place where it was when its line is gone or could be any', () => {
  expect(startLine('x = 1\n', '[io.py#load]')).toBe(4);
  expect(movedSpan('x\n', { span: { startLine: 10, endLine: 10 }, firstLine: '}' })?.startLine).toBe(10);
  expect(movedSpan('x\n', { span: { startLine: 10, endLine: 10 } })?.startLine).toBe(10);
  expect(movedSpan('x\n', place('[io.py]'))).toBeUndefined();
});
