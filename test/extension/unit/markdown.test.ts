/** What a model writes is hostile: it may have read it in a file. */
import { describe, expect, it } from 'vitest';
import { renderBlocks } from '../../../extension/chat/markdown';
import type { Citation, MissingPlace } from '../../../server/protocol';

const html = (text: string, citations: Citation[] = [], missing: MissingPlace[] = []) =>
  renderBlocks(text, citations, missing)
    .map((block) => block.html)
    .join('');
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

  it('escapes the path of a citation', () => {
    const out = html('[a"><b>.py]', [citation('[a"><b>.py]', 'a"><b>.py')]);
    expect(out).not.toContain('<b>');
    expect(out).toContain('a&quot;&gt;&lt;b&gt;.py');
  });

  it('shows code as text, citations in it too', () => {
    const out = html('```py\nx = "[a.py]" # <b>\n```', [citation('[a.py]', 'a.py')]);
    expect(out).toContain('&lt;b&gt;');
    expect(out).not.toMatch(/<a |citation/);
  });

  it('changes only the last block while an answer grows', () => {
    const before = renderBlocks('# One\n\nTwo\n\nThr', []);
    const after = renderBlocks('# One\n\nTwo\n\nThree and', []);
    expect(after.slice(0, 2)).toEqual(before.slice(0, 2));
    expect(after[2]).not.toEqual(before[2]);
  });
});
