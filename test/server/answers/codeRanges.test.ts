import { describe, expect, it } from 'vitest';
import { codeRanges, matchesOutsideCode } from '../../../server/answers/codeRanges';

const code = (text: string) => codeRanges(text).map(({ start, end }) => text.slice(start, end));

describe('codeRanges', () => {
  it.each([
    ['a `b` c ``d ` e`` f', ['`b`', '``d ` e``']],
    ['one ` alone, `two`', ['` alone, `']],
    ['`a``', []],
    ['over `two\nlines` of a paragraph', ['`two\nlines`']],
    ['ends `with\n\nits` paragraph', []],
    ['- ends `with\n- its` item', []],
    ['```py\nx\n```\n`y`', ['```py\nx\n```', '`y`']],
    ['`a`\n~~~\n```\nx\n~~~~\n`b`', ['`a`', '~~~\n```\nx\n~~~~', '`b`']],
    ['1. Do:\n   ```sh\n   x `\n   ```\n2. `y`', ['   ```sh\n   x `\n   ```', '`y`']],
    ['- ```\n  x\n  ```', ['- ```\n  x\n  ```']],
    ['````\n```\n````', ['````\n```\n````']],
    ['- Do:\n  ```sh\n  x `\n- `y`', ['  ```sh\n  x `', '`y`']],
    ['1. Do:\n\n   ```sh\n   x\n\nThen `y`.', ['   ```sh\n   x\n', '`y`']],
    ['- - ```\n    x\n  `y`', ['- - ```\n    x', '`y`']],
    ['> ```\n> x\n\n`y`', ['> ```\n> x', '`y`']],
    ['```\n> ```\n`x`\n```', ['```\n> ```\n`x`\n```']],
    ['Do:\n\n    x `\n\n`y`', ['    x `', '`y`']],
    ['|a `|b|\n|-|-|\n|`c`|`|', ['`c`']],
    ['`a`\r\n\r\n```\r\nx\r\n```\r\n`b`', ['`a`', '```\r\nx\r\n```', '`b`']],
    ['```not a fence``` [a]', ['```not a fence```']],
    ['x\n```\nnever closed `a`', ['```\nnever closed `a`']],
    ['', []],
  ])('of %j', (text, expected) => {
    expect(code(text)).toEqual(expected);
  });

  it('takes one pass, whatever there is', () => {
    const n = 200_000;
    for (const text of ['`'.repeat(n), '` `` '.repeat(n), ' '.repeat(n), '> '.repeat(n), '```\n'.repeat(n)])
      expect(codeRanges(text).length).toBeLessThanOrEqual(n);
    const lengths = Array.from({ length: 2_000 }, (_, i) => '`'.repeat(i + 1)).join(' ');
    expect(codeRanges(lengths)).toEqual([]);
  });
});

it('leaves out the matches that begin in code', () => {
  const text = 'a `a` a\n```\na\n```\na';
  expect([...matchesOutsideCode(text, /a/g)].map(({ index }) => index)).toEqual([0, 6, 18]);
  expect([...matchesOutsideCode('`a`a`a`', /a/g)].map(({ index }) => index)).toEqual([3]);
});
