/** Which parts of an answer are code, where brackets mean something else. CommonMark as models write it, in one pass. */

interface Range {
  start: number;
  end: number;
}

/** Behind a quote's or an item's mark too. What stands behind backticks has none: else it is a code span. */
const opening = /^[ \t>]*(?:(?:[-*+]|\d{1,9}[.)])[ \t]+)?(`{3,}(?=[^`]*$)|~{3,})/;
const closing = /^[ \t>]*(`{3,}|~{3,})\s*$/;
/** A code span ends with its paragraph, item, heading or row. */
const newBlock = /^[ \t]*(?:$|[-*+>#|]|\d{1,9}[.)])/;

/** Each run of backticks opens a span that the next run of its length closes. */
function* codeSpans(runs: readonly Range[]): Generator<Range> {
  const length = ({ start, end }: Range) => end - start;
  const latest = new Map<number, number>();
  const closers = runs.map(() => -1);
  for (let i = runs.length - 1; i >= 0; i--) {
    closers[i] = latest.get(length(runs[i]!)) ?? -1;
    latest.set(length(runs[i]!), i);
  }
  for (let i = 0; i < runs.length; i++) {
    const closer = closers[i]!;
    if (closer < 0) continue;
    yield { start: runs[i]!.start, end: runs[closer]!.end };
    i = closer;
  }
}

/** Fenced blocks and code spans, in their order. A fence that is not closed goes to the end. */
export function codeRanges(text: string): Range[] {
  const ranges: Range[] = [];
  let runs: Range[] = [];
  let fence: { marker: string; start: number } | undefined;
  const endBlock = () => {
    for (const span of codeSpans(runs)) ranges.push(span);
    runs = [];
  };
  let start = 0;
  for (const line of text.split('\n')) {
    const end = start + line.length;
    if (fence) {
      if (closing.exec(line)?.[1]?.startsWith(fence.marker)) {
        ranges.push({ start: fence.start, end });
        fence = undefined;
      }
    } else {
      const marker = opening.exec(line)?.[1];
      if (marker || newBlock.test(line)) endBlock();
      if (marker) fence = { marker, start };
      else
        for (const { index, 0: run } of line.matchAll(/`+/g))
          runs.push({ start: start + index, end: start + index + run.length });
    }
    start = end + 1;
  }
  endBlock();
  if (fence) ranges.push({ start: fence.start, end: text.length });
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
