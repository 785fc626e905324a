import { describe, expect, it } from 'vitest';
import { checkCitations, findSymbol } from '../../../server/answers/citations';

const source = `import os

LIMIT: int = 17


class Reader:
    """Reads."""

    limit = 3

    def close(self):
        pass


class Writer:
    def close(self):
        return LIMIT


def load_config(path):
    return open(path).read()
`;
const files = [{ path: 'app/io.py', absolutePath: '/w/app/io.py', tokens: 1, text: source }];
const findCitations = (answer: string) => checkCitations(answer, files).citations;
const line = (answer: string) => findCitations(answer).map(({ span }) => span?.startLine);

describe('findSymbol', () => {
  it.each([
    ['Reader', 6],
    ['load_config', 20],
    ['LIMIT', 3],
    ['Reader.close', 11],
    ['Writer.close', 16],
    ['Writer::close', 16],
    ['path', 20],
  ])('%s is on line %i', (symbol, expected) => {
    expect(findSymbol(source, symbol)?.startLine).toBe(expected);
  });

  it('finds nothing that is not there, whatever it is called', () => {
    for (const symbol of ['absent', '', '.', 'a(b', '[', '\\', 'clos'])
      expect(findSymbol(source, symbol)).toBeUndefined();
  });
});

describe('checkCitations', () => {
  it('links symbols, files and lines; with offsets', () => {
    const answer = 'See [app/io.py#Reader] and [app/io.py].';
    expect(findCitations(answer)).toMatchObject([
      { text: '[app/io.py#Reader]', offset: 4, symbol: 'Reader', span: { startLine: 6, endLine: 6 } },
      { text: '[app/io.py]', offset: 27, uri: 'file:///w/app/io.py' },
    ]);
  });

  it('leaves plain what is in no packed file', () => {
    expect(findCitations('[app/other.py#Reader] [app/io.py#Nothing] [../../etc/passwd]')).toEqual([]);
  });

  it('keeps lines near what the sentence names', () => {
    expect(line('`load_config` opens it [app/io.py:L20-L21].')).toEqual([20]);
    expect(line('`load_config` opens it [app/io.py:L18].')).toEqual([18]);
  });

  it('moves lines that are far off to what the sentence names', () => {
    expect(line('`load_config` opens it [app/io.py:L2].')).toEqual([20]);
    expect(line('`load_config` opens it [app/io.py:L900-L1000].')).toEqual([20]);
  });

  it('shrinks lines that nothing supports to the file', () => {
    expect(line('It is there [app/io.py:L2].')).toEqual([undefined]);
  });

  it('tells which places are not there, and why', () => {
    const answer =
      'In [app/io.py#Reader], [app/io.py#Nothing], [lib/other.py#Reader] and [other.py:L3], not [app/io.py:L900].';
    expect(checkCitations(answer, files).missing).toEqual([
      { text: '[app/io.py#Nothing]', why: 'app/io.py does not contain Nothing.' },
      {
        text: '[lib/other.py#Reader]',
        why: 'There is no lib/other.py among the files that were read.',
      },
      { text: '[other.py:L3]', why: 'There is no other.py among the files that were read.' },
    ]);
  });

  it('takes no other brackets for places', () => {
    const answer =
      'See [0], [string], [first:10], [1:2], [note#1], [a.b], [x] and [label](https://example.com/a#b).';
    expect(checkCitations(answer, files)).toEqual({ citations: [], missing: [] });
  });
});
