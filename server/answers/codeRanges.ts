/** Which parts of an answer are code, where brackets mean something else: blocks as the panel's own parser takes them. */
import MarkdownIt from 'markdown-it';

interface Range {
  start: number;
  end: number;
}

/** Of blocks alone. */
const markdown = new MarkdownIt().disable('inline');

function linesOf(text: string): Range[] {
  const lines: Range[] = [];
  let start = 0;
  for (const { index, 0: end } of text.matchAll(/\r\n?|\n/g)) {
    lines.push({ start, end: index });
    start = index + end.length;
  }
  return [...lines, { start, end: text.length }];
}

/** Each run of backticks opens a span that the next run of its length closes. */
function* codeSpans(text: string, { start, end }: Range): Generator<Range> {
  const runs = [...text.slice(start, end).matchAll(/`+/g)];
  const latest = new Map<number, number>();
  const closers = runs.map(() => -1);
  for (let i = runs.length - 1; i >= 0; i--) {
    const { length } = runs[i]![0];
    closers[i] = latest.get(length) ?? -1;
    latest.set(length, i);
  }
  for (let i = 0; i < runs.length; i++) {
    const closer = runs[closers[i]!];
    if (!closer) continue;
    yield { start: start + runs[i]!.index, end: start + closer.index + closer[0].length };
    i = closers[i]!;
  }
}

/** Blocks, by whole lines, and code spans, in their order. */
export function codeRanges(text: string): Range[] {
  const lines = linesOf(text);
  const ranges: Range[] = [];
  for (const { type, map } of markdown.parse(text, {})) {
    if (!map) continue;
    const range = { start: lines[map[0]]!.start, end: lines[map[1] - 1]!.end };
    if (type === 'fence' || type === 'code_block') ranges.push(range);
    // A span ends with its paragraph, heading or row.
    else if (type === 'inline' || type === 'tr_open')
      for (const span of codeSpans(text, range)) ranges.push(span);
  }
  return ranges;
}

/** The matches of a pattern that do not begin in code. */
export function* matchesOutsideCode(text: string, pattern: RegExp): Generator<RegExpExecArray> {
  const ranges = codeRanges(text).values();
  let range = ranges.next().value;
  for (const match of text.matchAll(pattern)) {
    while (range && range.end <= match.index) range = ranges.next().value;
    if (!range || match.index < range.start) yield match;
  }
}
