import { describe, expect, it } from 'vitest';
import { checkCitations, findSymbol, withPlainPlaces } from '../../../server/answers/citations';
import { onPlatform } from '../platform/onPlatform';

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
const missing = (answer: string) => checkCitations(answer, files).missing.map(({ text }) => text);
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

describe('findSymbol in files that were made to stop it', () => {
  const spaces = ' '.repeat(200_000);
  it.each([
    ['spaces', spaces],
    ['spaces before a word', `${spaces}x`],
    ['spaces behind words', ['func ()', 'const', 'def', 'def *', 'name', 'name :'].join(spaces)],
    ['modifiers', 'export const '.repeat(20_000)],
    ['open brackets', 'func ('.repeat(40_000)],
    ['colons', `name ${':'.repeat(200_000)}`],
    ['words', 'int '.repeat(50_000)],
    ['owners', `int ${'a::'.repeat(60_000)}`],
    ['the name, called', 'int name(int a, '.repeat(15_000)],
    ['the name, as a part', 'name'.repeat(50_000)],
  ])('%s', (_, line) => {
    expect(findSymbol(`${line}\nother\ndef other():`, 'other')?.startLine).toBe(3);
    expect(findSymbol(`name = 1\n${line}`, 'name')?.startLine).toBe(1);
  });

  it('knows no name that is as long as a page', () => {
    const name = 'a-'.repeat(10_000);
    expect(findSymbol(name.repeat(10), name)).toBeUndefined();
  });
});

it('takes no part of a name for a definition', () => {
  expect(findSymbol('classroom = 1\nroom = 2\n', 'room')?.startLine).toBe(2);
  expect(findSymbol('x(items)\nfunction* items() {}\n', 'items')?.startLine).toBe(2);
  expect(findSymbol('x(items)\nfunction *items() {}\n', 'items')?.startLine).toBe(2);
});

it('finds a function behind its type, not a call of it before', () => {
  const java = [
    'class DeviceType {',
    '  public boolean isTablet() {',
    '    return getDeviceType() == TABLET;',
    '  }',
    '  void refresh() {',
    '    getDeviceType();',
    '    while getDeviceType(x) {',
    '  }',
    '  @Override public Map<String, List<Type>> getDeviceType(',
    '      final String name) throws IOException {',
    '  }',
    '}',
  ].join('\n');
  expect(findSymbol(java, 'getDeviceType')?.startLine).toBe(9);
  const c = 'int use(void) { return 1 + load_page(2); }\n  load_page(3);\nstatic page *load_page(int n)\n{\n';
  expect(findSymbol(c, 'load_page')?.startLine).toBe(3);
  const cpp = 'void a() {\n  close();\n}\nvoid Reader::close() noexcept {\n';
  expect(findSymbol(cpp, 'close')?.startLine).toBe(4);
  expect(findSymbol('  Size();\n  public int Size() => 3;\n', 'Size')?.startLine).toBe(2);
  expect(findSymbol('[DeviceUID uid];\n+ (NSString *)uid {\n', 'uid')?.startLine).toBe(2);
  expect(findSymbol('#ifndef LIMIT\n#define LIMIT 3\n', 'LIMIT')?.startLine).toBe(2);
  expect(findSymbol('load()\nfun load() = 3\n', 'load')?.startLine).toBe(2);
});

it('takes no call with a block for a definition', () => {
  expect(findSymbol('  await load({\n  });\nload = () => 3;\n', 'load')?.startLine).toBe(3);
  expect(findSymbol('  void load(() => {\n  });\nload = () => 3;\n', 'load')?.startLine).toBe(3);
  expect(findSymbol('"""See also load(x) and more."""\nload = lambda x: {x}\n', 'load')?.startLine).toBe(2);
});

it('finds names of any script, and no part of one', () => {
  const text = 'def berechne_fläche(länge):\n  naïve = 1\n  na = 2\nclass 处理器:\n  def 读取(self):\n';
  expect(findSymbol(text, '处理器')?.startLine).toBe(4);
  expect(findSymbol(text, '读取')?.startLine).toBe(5);
  expect(findSymbol(text, 'na')?.startLine).toBe(3);
  for (const part of ['fl', 'ä', 'nge', '处理', 'berechne_fl'])
    expect(findSymbol(text, part)).toBeUndefined();
  const umlauts = [{ ...files[0]!, text: `${'x\n'.repeat(20)}def größe():\n` }];
  const { citations } = checkCitations('Die Länge von `größe`: [app/io.py:L2].', umlauts);
  expect(citations[0]?.span?.startLine).toBe(21);
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
    expect(line('It imports `os` [app/io.py:L3].')).toEqual([3]);
    expect(line('`LIMIT` follows [app/io.py:L1].')).toEqual([1]);
  });

  it('moves lines that are far off to what the sentence names', () => {
    expect(line('`load_config` opens it [app/io.py:L2].')).toEqual([20]);
    expect(line('`load_config` opens it [app/io.py:L900-L1000].')).toEqual([20]);
    // Without backticks too, where it cannot be a word of the sentence.
    expect(line('load_config opens it [app/io.py:L2].')).toEqual([20]);
    expect(line('close() is empty [app/io.py:L2].')).toEqual([11]);
    expect(line('Reader.close(now) is empty [app/io.py:L2].')).toEqual([11]);
    for (const none of ['L0-L20', 'L20-L19', 'L20-L900'])
      expect(findCitations(`\`load_config\` opens it [app/io.py:${none}].`)[0]).toMatchObject({
        span: { startLine: 20, endLine: 20 },
      });
    expect(line('`absent` and `load_config` open it [app/io.py:L2].')).toEqual([20]);
  });

  it('shrinks lines that nothing supports to the file', () => {
    expect(line('It is there [app/io.py:L2].')).toEqual([undefined]);
    expect(line('`load_config` opens it. It is there [app/io.py:L2].')).toEqual([undefined]);
    expect(line('`load_config` opens it\nIt is there [app/io.py:L2].')).toEqual([undefined]);
    expect(line('`absent.` is there [app/io.py:L2].')).toEqual([undefined]);
  });

  it('tells which places are not there, and why', () => {
    const answer =
      'In [app/io.py#Reader], [app/io.py#Nothing], [lib/other.py#Reader] and [other.py:L3], not [app/io.py:L900].';
    expect(checkCitations(answer, files).missing).toEqual([
      { text: '[app/io.py#Nothing]', why: 'No file that was read contains Nothing.' },
      {
        text: '[lib/other.py#Reader]',
        why: 'There is no lib/other.py among the files that were read.',
      },
      { text: '[other.py:L3]', why: 'There is no other.py among the files that were read.' },
    ]);
  });

  it('tells a name that stands in another file from one that stands nowhere', () => {
    const two = [...files, { ...files[0]!, path: 'app/web.py', text: '# Writers\ndef serve():\n' }];
    expect(checkCitations('[app/web.py#Writer] and [app/io.py#serve_file]', two).missing).toEqual([
      { text: '[app/web.py#Writer]', why: 'app/web.py does not contain Writer; app/io.py does.' },
      { text: '[app/io.py#serve_file]', why: 'No file that was read contains serve_file.' },
    ]);
  });

  it('lists a place that is not there once', () => {
    const answer = '[app/io.py#Nothing], again [app/io.py#Nothing] and [app/io.py#None].';
    expect(missing(answer)).toEqual(['[app/io.py#Nothing]', '[app/io.py#None]']);
  });

  it("takes GitHub's lines, where there is no such symbol", () => {
    expect(line('`load_config` opens it [app/io.py#L20-L21].')).toEqual([20]);
    expect(line('`load_config` opens it [app/io.py#L20].')).toEqual([20]);
    expect(line('It is there [app/io.py#L2].')).toEqual([undefined]);
    const macros = [{ ...files[0]!, text: '#define L1 3\n\n#define L2 4\n' }];
    expect(checkCitations('[app/io.py#L2]', macros).citations[0]).toMatchObject({
      symbol: 'L2',
      span: { startLine: 3 },
    });
  });

  it.each([
    ['Writer.close()', 16, 'Writer.close'],
    ['load_config(path)', 20, 'load_config'],
    ['Reader<T>', 6, 'Reader'],
    ['`Reader`', 6, 'Reader'],
    ['"Reader"', 6, 'Reader'],
    ["'Reader'", 6, 'Reader'],
    ['(*Writer).close', 11, '(*Writer).close'],
  ])('finds the name in #%s', (written, expected, symbol) => {
    const text = `[app/io.py#${written}]`;
    expect(checkCitations(`See ${text}.`, files)).toMatchObject({
      citations: [{ text, symbol, span: { startLine: expected } }],
      missing: [],
    });
  });

  it.each(['./app/io.py', '/app/io.py', './/app/io.py'])('finds the file of %s', (written) => {
    expect(findCitations(`[${written}#Reader]`)).toMatchObject([
      { text: `[${written}#Reader]`, path: 'app/io.py', span: { startLine: 6 } },
    ]);
  });

  it('finds the headings of Markdown files', () => {
    const readme =
      '# Project\n\nSee [how](#how-it-works).\n\n## How it works\n\nWell.\n\n### `--repo FOLDER`, and *more* ##\n';
    const markdown = [{ ...files[0]!, path: 'README.md', text: readme }];
    const at = (anchor: string) =>
      checkCitations(`[README.md#${anchor}]`, markdown).citations.map(({ span }) => span?.startLine);
    expect(at('how-it-works')).toEqual([5]);
    expect(at('How-it-works')).toEqual([5]);
    expect(at('--repo-folder-and-more')).toEqual([9]);
    expect(at('Well')).toEqual([7]);
    expect(at('absent')).toEqual([]);
    const source = [{ ...files[0]!, path: 'a.sh', text: 'run\n# run\n' }];
    expect(checkCitations('[a.sh#run]', source).citations[0]?.span?.startLine).toBe(1);
  });

  describe('paths with spaces', () => {
    const named = ['src code/read config.py', 'My Notes.md'].map((path) => ({
      ...files[0]!,
      path,
      text: path.endsWith('.md') ? '# Notes\n\n## How to install\n' : source,
    }));
    const check = (answer: string) => checkCitations(answer, named);

    it('are links', () => {
      const texts = ['', '#load_config', '#load_config(path, mode)', ':L20'].map(
        (place) => `[src code/read config.py${place}]`,
      );
      const { citations, missing } = check(`\`load_config\` is in ${texts.join(', ')}.`);
      expect(citations.map(({ text, span }) => [text, span?.startLine])).toEqual(
        texts.map((text, i) => [text, i === 0 ? undefined : 20]),
      );
      expect(missing).toEqual([]);
      expect(check('[My Notes.md#How to install]').citations[0]?.span?.startLine).toBe(3);
    });

    it('are told where they are not there', () => {
      expect(
        check('[src code/read config.py#gone], [src code/gone.py#f] [My Notes.md#no such]').missing,
      ).toEqual([
        { text: '[src code/read config.py#gone]', why: 'No file that was read contains gone.' },
        { text: '[src code/gone.py#f]', why: 'There is no src code/gone.py among the files that were read.' },
        { text: '[My Notes.md#no such]', why: 'No file that was read contains no such.' },
      ]);
    });

    it('are told from words in brackets', () => {
      for (const answer of [
        '[see gone.py:3]',
        '[see #12]',
        '[as in issue#12 of theirs]',
        '[at 10: 30]',
        '[ x]',
      ])
        expect(check(answer)).toEqual({ citations: [], missing: [] });
      expect(check('[see [My Notes.md]]').citations).toHaveLength(1);
    });
  });

  describe('paths with brackets', () => {
    const paths = [
      ...['app/[slug]/page.tsx', 'app/[...all]/route.ts', 'app/[[...opt]]/page.tsx', 'app/(group)/page.tsx'],
      ...['[id].vue', '[[lang]]/page.ts', 'users-[group]/[id].vue', 'routes/[slug=integer]/[x]-[y].ts'],
      ...['client [2026]/main.ts', 'notes (old) [two drafts].md', '50% [x](y)/a b.ts'],
    ];
    const named = paths.map((path) => ({ ...files[0]!, path, text: 'export default function Page() {}\n' }));

    it.each(paths)('%s', (path) => {
      const texts = [`[${path}]`, `[${path}#Page]`, `[${path}:L1]`];
      const { citations, missing } = checkCitations(`See ${texts.join(', ')}, not [${path}#Nope].`, named);
      expect(citations.map((citation) => citation.text)).toEqual(texts);
      expect(citations.every((citation) => citation.path === path)).toBe(true);
      expect(missing).toEqual([{ text: `[${path}#Nope]`, why: 'No file that was read contains Nope.' }]);
    });

    it('are told apart from places in brackets', () => {
      for (const answer of ['[[app/io.py]]', '[see,[app/io.py]]', '[app/io.py][0]', 'x[i[0]], [app/io.py]'])
        expect(findCitations(answer).map(({ text }) => text)).toEqual(['[app/io.py]']);
      expect(missing('[app/[gone]/io.py#f]')).toEqual(['[app/[gone]/io.py#f]']);
    });
  });

  it('knows the hashes and colons of a path from those before a place', () => {
    const paths = ['C#/Program.cs', 'F#/C#/lib.fs', 'a:b.py', 'notes #2.md', 'log:12', 'C#/[id]/x.cs'];
    const named = paths.map((path) => ({ ...files[0]!, path, text: '\nclass Main {}\n' }));
    const short = { ...files[0]!, path: 'log', text: 'class Main {}\n' };
    for (const path of paths) {
      const texts = [`[${path}]`, `[${path}#Main]`, `[./${path}:L2]`];
      const answer = `\`Main\`: ${texts.join(', ')}, not [${path}#Nope] nor \`[${path}]\`.`;
      const { citations, missing } = checkCitations(answer, [...named, short]);
      expect(citations.map(({ text, path, span }) => [text, path, span?.startLine])).toEqual([
        [texts[0], path, undefined],
        [texts[1], path, 2],
        [texts[2], path, 2],
      ]);
      expect(missing.map(({ text }) => text)).toEqual([`[${path}#Nope]`]);
      expect(withPlainPlaces(answer, named)).toContain(`${path}:2,`);
    }
    expect(checkCitations('[log:1] [log#Main] [C#/Gone.cs]', [...named, short]).citations).toHaveLength(2);
  });

  it('takes no other brackets for places', () => {
    for (const answer of [
      'See [0], [string], [first:10], [1:2], [note#1], [a.b], [x] and [label](https://example.com/a#b).',
      'From [pallets/flask#1234](https://github.com/pallets/flask/pull/1234), or [pallets/flask#1234].',
      'Slices buf[self.pos:16], rows[n/2:10], [n/2:10], x()[io.py:3] and x[0][app/a.c:3].',
      'Connects to [db.internal:5432], [10.0.0.1:80] and [localhost:80].',
      'As [kotlinx.coroutines.Job#cancel] does.',
      'Calls [app/other.py#run](self).',
      'Escapes \\[app/io.py#Reader\\] and \\[app/io.py#Nothing\\].',
    ])
      expect(checkCitations(answer, files)).toEqual({ citations: [], missing: [] });
  });

  it('leaves a Markdown link to the web alone, and no other', () => {
    expect(findCitations('[app/io.py](https://example.com/app/io.py)')).toEqual([]);
    expect(findCitations('[app/io.py](app/io.py), [app/io.py](see there)')).toHaveLength(2);
  });

  it('takes nothing in code for a place', () => {
    const places = '[app/io.py#Reader] [app/io.py] [app/io.py#Nothing] [lib/other.py#Reader]';
    for (const answer of [`\`${places}\``, `\`\`\`\n${places}\n\`\`\``])
      expect(checkCitations(answer, files)).toEqual({ citations: [], missing: [] });
    expect(findCitations(`\`x\` ${places}`)).toHaveLength(2);
    // Code that is not closed ends with its list: what is behind it is none.
    expect(findCitations(`- Do:\n  \`\`\`sh\n  make\n\nSee ${places}.`)).toHaveLength(2);
  });

  it('reads an answer once, whatever it is', () => {
    const sentence = '`absent_name` and `load_config` [app/io.py:L2] '.repeat(4_000);
    expect(new Set(line(sentence))).toEqual(new Set([20]));
    const nested = ['[/[a]', '[/', '/[a]', '[a/[b', '[a/[[b]', '[/[a]]', '[[a]', '[[a]]/'];
    for (const part of ['[', '[app/io.py', '[app/io.py#', '[a:1', '`[', './', ...nested])
      expect(checkCitations(part.repeat(50_000), files)).toEqual({ citations: [], missing: [] });
  });

  it('takes a path for meant that is of a kind or in a folder that was read', () => {
    expect(missing('[other.py:L3] [app/Makefile#all] [./gone/x.py#f]')).toEqual([
      '[other.py:L3]',
      '[app/Makefile#all]',
      '[./gone/x.py#f]',
    ]);
    expect(missing('[other.rs:L3] [lib/Makefile#all] [gone.py] [app/gone]')).toEqual([]);
  });
});

describe('withPlainPlaces', () => {
  it('names places where nothing can be a link, and marks those that are not there', () => {
    expect(withPlainPlaces('`load_config` is in [app/io.py#load_config], see [app/io.py].', files)).toBe(
      '`load_config` is in app/io.py:20, see app/io.py.',
    );
    expect(withPlainPlaces('See [app/io.py#gone] and [gone.py:L3], row[0].', files)).toBe(
      'See app/io.py#gone (not found) and gone.py:L3 (not found), row[0].',
    );
  });

  it('names each by what is said of it, and leaves code as it is', () => {
    const places = '`load_config` is in [app/io.py:40]. `Writer` is in [app/io.py:40].';
    expect(withPlainPlaces(places, files)).toBe(
      '`load_config` is in app/io.py:20. `Writer` is in app/io.py:15.',
    );
    const code = 'paths = [app/io.py] + [app/io.py#gone]';
    expect(withPlainPlaces(`[app/io.py], [app/io.py#gone]\n\`\`\`\n${code}\n\`\`\``, files)).toBe(
      `app/io.py, app/io.py#gone (not found)\n\`\`\`\n${code}\n\`\`\``,
    );
  });
});

describe('a path in an answer', () => {
  const answer = 'Here: [App/IO.py#Reader], [app\\io.py#Writer], [.\\app\\io.py] and [APP\\gone.PY:3].';
  const places = (text: string) => {
    const { citations, missing } = checkCitations(text, files);
    return [citations.map(({ path, span }) => `${path}:${span?.startLine}`), missing.map(({ why }) => why)];
  };

  it('names a file in any case, and with either slash, where the system takes it for that file', async () => {
    expect(await onPlatform('win32', () => places(answer))).toEqual([
      ['app/io.py:6', 'app/io.py:15', 'app/io.py:undefined'],
      ['There is no APP/gone.PY among the files that were read.'],
    ]);
    expect(await onPlatform('darwin', () => places(answer))).toMatchObject([['app/io.py:6'], {}]);
    expect((await onPlatform('linux', () => places(answer)))[0]).toEqual([]);
  });

  it('names the one of just this case where there are two all the same', async () => {
    const two = ['io.py', 'IO.py'].map((path) => ({ ...files[0]!, path, absolutePath: `/w/${path}` }));
    await onPlatform('darwin', () => {
      for (const { path } of two)
        expect(checkCitations(`[${path}]`, two).citations).toMatchObject([{ path }]);
    });
  });
});
