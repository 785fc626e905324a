import { describe, expect, it } from 'vitest';
import { findCitations, findSymbol } from '../../../server/answers/citations';

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
const line = (answer: string) => findCitations(answer, files).map(({ span }) => span?.startLine);

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

describe('findCitations', () => {
  it('links symbols, files and lines; with offsets', () => {
    const answer = 'See [app/io.py#Reader] and [app/io.py].';
    expect(findCitations(answer, files)).toMatchObject([
      { text: '[app/io.py#Reader]', offset: 4, symbol: 'Reader', span: { startLine: 6, endLine: 6 } },
      { text: '[app/io.py]', offset: 27, uri: 'file:///w/app/io.py' },
    ]);
  });

  it('leaves plain what is in no packed file', () => {
    expect(findCitations('[app/other.py#Reader] [app/io.py#Nothing] [../../etc/passwd]', files)).toEqual([]);
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
});
