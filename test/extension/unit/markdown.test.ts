/** What a model writes is hostile: it may have read it in a file. */
import { describe, expect, it } from 'vitest';
import { renderBlocks } from '../../../extension/chat/markdown';
import { checkCitations } from '../../../server/answers/citations';
import type { Citation, MissingPlace } from '../../../server/protocol';

const html = (text: string, citations: Citation[] = [], missing: MissingPlace[] = []) =>
  renderBlocks(text, citations, missing).join('');
const citation = (text: string, path: string): Citation => ({
  text,
  offset: 0,
  path,
  uri: `file:///w/${path}`,
});

describe('renderBlocks', () => {
  it.each([
    '<script>alert(1)</script>',
    '<img src=x onerror=alert(1)>',
    '![x](data:image/png;base64,AAAA)',
    '[x](javascript:alert(1))',
    '[x](command:workbench.action.terminal.new)',
    '[x](vscode://file/etc/passwd)',
    '[x](data:text/html,<script>alert(1)</script>)',
    '[x](file:///etc/passwd)',
    '[x](http://example.com)',
    '<a href="command:x">x</a>',
    '<style>*{display:none}</style>',
  ])('%s makes neither an element nor a link', (text) => {
    expect(html(text)).not.toMatch(/<(script|img|a|style|iframe)\b/);
  });

  it('shows no image: at most a link to it', () => {
    expect(html('![x](https://example.com/a.png)')).not.toContain('<img');
  });

  it('keeps https links', () => {
    expect(html('[x](https://example.com/a)')).toContain('<a href="https://example.com/a">');
  });

  it('marks a place that is not there, in words, and makes no link of it', () => {
    const out = html('In [b.py#<f>].', [], [{ text: '[b.py#<f>]', why: 'b.py does not contain "<f>".' }]);
    expect(out).not.toMatch(/<a\b|<f>/);
    expect(out).toContain('title="b.py does not contain &quot;&lt;f&gt;&quot;."');
    expect(out).toContain('b.py#<wbr>&lt;f&gt; <span class="mark">not found</span>');
  });

  it('makes a link of a checked citation, and of nothing else', () => {
    const there = citation('[a.py#f]', 'a.py');
    const out = html('In [a.py#f], not in [b.py#f].', [{ ...there, span: { startLine: 3, endLine: 4 } }]);
    expect(out.match(/<a /g)).toHaveLength(1);
    expect(out).toContain('data-citation="0"');
    expect(out).toContain(':3–4');
    expect(out).toContain('[b.py#f]');
  });

  it('makes links of paths with brackets', () => {
    const texts = ['[a/[slug]/p.ts#f]', '[a/[[...opt]]/[id].vue]', '[a/(group)/p.ts]', '[[id].vue:L2]'];
    const links = texts.map((text) => citation(text, 'p'));
    const out = html(`In ${texts.join(', ')} and [see [a/(group)/p.ts]].`, links);
    expect(out.match(/data-citation="\d"/g)).toEqual(
      [0, 1, 2, 3, 2].map((index) => `data-citation="${index}"`),
    );
    expect(out).toContain('>a/<wbr>[slug]/<wbr>p.ts#<wbr>f</a>');
    expect(out).toContain('[see <a ');
    expect(html('[a/[b]/[gone].ts]')).toBe('<p>[a/[b]/[gone].ts]</p>\n');
  });

  it('leads each of several citations of one text to its own lines', () => {
    const there = citation('[a.py:L9]', 'a.py');
    const at = (startLine: number) => ({ ...there, span: { startLine, endLine: startLine } });
    const other = citation('[b.py]', 'b.py');
    const blocks = renderBlocks('*F* [a.py:L9] **and** [b.py]\n\n- g [a.py:L9]\n- `[a.py:L9]`, h [a.py:L9]', [
      at(3),
      other,
      at(20),
      at(40),
    ]);
    const links = (block: string) =>
      [...block.matchAll(/data-citation="(\d)" title="([^"]*)"/g)].map((match) => match.slice(1));
    expect(blocks.map(links)).toEqual([
      [
        ['0', 'Open a.py, line 3'],
        ['1', 'Open b.py'],
      ],
      [
        ['2', 'Open a.py, line 20'],
        ['3', 'Open a.py, line 40'],
      ],
    ]);
  });

  it('takes the citations that the server finds, one for one', () => {
    const text = 'def f():\n\n\n\n\n\n\n\n\ndef g():';
    const files = [{ path: 'a.py', absolutePath: '/w/a.py', tokens: 1, text }];
    const answer =
      '`f` [a.py:L5], [a.py:L5](https://example.com), `[a.py:L5]`.\n```\n[a.py:L5]\n```\n' +
      '1. `g` [a.py:L5]\n2. [`g`](https://example.com/g), [a.py#`g`] and [gone.py#g]';
    const { citations, missing } = checkCitations(answer, files);
    const out = html(answer, citations, missing);
    expect([...out.matchAll(/data-citation="(\d)"/g)].map(([, index]) => index)).toEqual(['0', '1', '2']);
    expect([...out.matchAll(/, line (\d+)"/g)].map(([, line]) => line)).toEqual(['1', '10', '10']);
    expect(out.match(/href="https:\/\/example.com/g)).toHaveLength(2);
    expect(out.match(/class="missing"/g)).toHaveLength(1);
  });

  it('escapes the path of a citation', () => {
    const out = html('[a"><b>.py]', [citation('[a"><b>.py]', 'a"><b>.py')]);
    expect(out).not.toContain('<b>');
    expect(out).toContain('a&quot;&gt;&lt;b&gt;.py');
  });

  it('breaks a line where a model writes the tag for it, as in a cell of a table, and takes no other', () => {
    expect(html('| a |\n|--|\n| one<br>two<BR/>three<br />four |')).toMatch(
      /<td>one<br>\s*two<br>\s*three<br>\s*four<\/td>/,
    );
    for (const text of ['`<br>`', '<br onclick=x>', '<b>', '\\<br>', '<brx>'])
      expect(html(text)).not.toContain('<br');
  });

  it('aligns the columns of a table by classes alone, which the page has styles for', () => {
    const out = html('| a | b | c |\n|:--|--:|:-:|\n| 1 | 2 | 3 |');
    const cells = [...out.matchAll(/<t[hd]( [^>]*)?>/g)].map(([, attributes]) => attributes);
    const row = [' class="align-left"', ' class="align-right"', ' class="align-center"'];
    expect(cells).toEqual([...row, ...row]);
  });

  it('shows code as text, citations in it too', () => {
    const out = html('```py\nx = "[a.py]" # <b>\n```', [citation('[a.py]', 'a.py')]);
    expect(out).toContain('&lt;b&gt;');
    expect(out).not.toMatch(/<a |citation/);
  });

  it('shows the marks that would turn the direction of what is read', () => {
    const citations = [citation('[a\u202e.py]', 'a\u202e.py')];
    const out = html('x\u202ey `a\u2066b`, [a\u202e.py]\n\n```js\nif (a) {\u2069 //\n```', citations);
    expect(out).not.toMatch(/[\u202a-\u202e\u2066-\u2069]/);
    expect(out).toContain('x\\u202ey <code>a\\u2066b</code>');
    expect(out).toContain('title="Open a\\u202e.py"');
    expect(out).toContain('if (a) {\\u2069 //');
    // Arabic and Hebrew are as they were.
    expect(html('שלום \u200fعليكم')).toBe('<p>שלום \u200fعليكم</p>\n');
  });

  it('changes only the last block while an answer grows', () => {
    const before = renderBlocks('# One\n\nTwo\n\nThr', []);
    const after = renderBlocks('# One\n\nTwo\n\nThree and', []);
    expect(after.slice(0, 2)).toEqual(before.slice(0, 2));
    expect(after[2]).not.toEqual(before[2]);
  });
});
