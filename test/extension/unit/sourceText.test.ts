/** Sources in words. */
import { expect, it } from 'vitest';
import { briefly, linesOf, percent, sourcesLine } from '../../../extension/chat/sourceText';

const sources = (...paths: string[]) => paths.map((path) => ({ path, uri: `file:///${path}`, share: 0.5 }));

it('names two files, by their paths where their names are the same, and counts the others', () => {
  expect(briefly(sources('a/x.py'))).toBe('x.py');
  expect(briefly(sources('a/x.py', 'y.py'))).toBe('x.py, y.py');
  expect(briefly(sources('a/x.py', 'c/y.py', 'z.py', 'b/x.py'))).toBe('a/x.py, y.py +2');
});

it('writes lines, shares and nothing where there is nothing', () => {
  expect(linesOf({ span: { startLine: 3, endLine: 3 } })).toBe(':3');
  expect(linesOf({ span: { startLine: 3, endLine: 30 } })).toBe(':3–30');
  expect(linesOf({})).toBe('');
  expect([0.004, 0.714, 1].map(percent)).toEqual(['0 %', '71 %', '100 %']);
  expect(sourcesLine([])).toBe('');
  expect(sourcesLine()).toBe('');
});

it('keeps what a file is called within its code', () => {
  const [source] = sources('a`![x](https:/example.com/x)`.ts');
  expect(sourcesLine([source!])).toBe("Looked at most: `a'![x](https:/example.com/x)'.ts` (50 %)\n");
});
