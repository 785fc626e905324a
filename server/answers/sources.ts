/**
 * Which files an answer was read from: the focus of its words (engine.ts, Context.focus), summed by file and by line. It tells
 * where the model looked, not that what it says is right.
 */
import { pathToFileURL } from 'node:url';
import type { PackedRepository } from '../prompt/pack';
import type { FilePlace } from '../prompt/packing';
import type { Source, Span } from '../protocol';
import type { Tokenizer } from '../tokenizer/types';
import { placeIn } from './citations';

/** A longer list is read by nobody; a smaller share is what any file gets. */
const maxSources = 8;
const minShare = 0.02;
/**
 * The lines of a span hold at least so much of what the lines of the file got, and are so many at most. The line that frames it
 * does not count: an answer that names a file copies from there, which may take most.
 */
const minHeld = 0.5;
const maxLines = 40;
/**
 * Of what the whole file got, frame included, a span holds at least so much. Measured over 60,000 tokens: 15 of 16 spans that
 * hold the definition do, 3 of 10 of the others.
 */
const minOfFile = 0.15;
/**
 * Of what the lines of all versions got, the latest has at least so much where it has a span. Measured after an edit: a third,
 * although the answer was right; the name is looked at in both, the value in the latest.
 */
const minLatest = 0.25;

function sum(values: Iterable<number>): number {
  let total = 0;
  for (const value of values) total += value > 0 ? value : 0;
  return total;
}

/**
 * The files that got most of the focus, the strongest first. `focus` [tokens] is of a prompt in which `repository.tokens` begin
 * at `start`. All versions of a file count for it; instructions, tree and deleted files do not.
 */
export function findSources(
  focus: Float32Array,
  start: number,
  { files, places, tokens }: Pick<PackedRepository, 'files' | 'places' | 'tokens'>,
  tokenizer: Tokenizer,
): Source[] {
  const focusOf = (place: FilePlace) => focus.subarray(start + place.start, start + place.end);
  const linesOf = (place: FilePlace) =>
    byLine(focusOf(place), tokens.subarray(place.start, place.end), place.path, tokenizer);
  const versions = new Map<string, FilePlace[]>(files.map(({ path }) => [path, []]));
  for (const place of places) versions.get(place.path)?.push(place);
  const got = files.map(({ path, absolutePath, text }) => {
    const all = versions.get(path)!;
    return { path, absolutePath, text, versions: all, focus: sum(all.map((place) => sum(focusOf(place)))) };
  });
  const total = sum(got.map(({ focus }) => focus));
  return got
    .filter(({ focus }) => focus > 0 && focus >= minShare * total)
    .sort((a, b) => b.focus - a.focus)
    .slice(0, maxSources)
    .map(({ path, absolutePath, text, versions, focus }) => {
      const lines = versions.map(linesOf);
      const latest = lines.at(-1)!;
      const place = sum(latest) >= minLatest * sum(lines.map(sum)) ? latest : [];
      const best = shortestRun(place, minHeld * sum(latest));
      const span = best && best.got >= minOfFile * focus ? best.span : undefined;
      const share = Math.round((1000 * focus) / total) / 1000;
      return { path, uri: pathToFileURL(absolutePath).href, share, ...placeIn(text, span) };
    });
}

/**
 * What each line of a version of a file got, by its tokens: a token counts for the line that it begins in. What frames the file
 * (frame.ts) is none of its lines.
 */
function byLine(focus: Float32Array, tokens: Int32Array, path: string, tokenizer: Tokenizer): number[] {
  const lineFeeds = (text: string) => text.split('\n').length - 1;
  const decoder = tokenizer.decoder();
  const lines = [0];
  for (let i = 0; i < tokens.length; i++) {
    lines[lines.length - 1]! += focus[i]! > 0 ? focus[i]! : 0;
    for (let left = lineFeeds(decoder.push(tokens[i]!)); left > 0; left--) lines.push(0);
  }
  // `<file path="…">`, where on Linux a path may have lines of its own; `</file>`, and what is behind its line feed.
  return lines.slice(1 + lineFeeds(path), -2);
}

/** The fewest lines in a row that got as much; of as few, those that got most. Undefined where that takes too many. */
function shortestRun(lines: readonly number[], wanted: number): { span: Span; got: number } | undefined {
  let best: { span: Span; got: number } | undefined;
  let most = maxLines;
  for (let first = 0; first < lines.length && wanted > 0; first++) {
    let got = 0;
    for (let last = first; last < Math.min(lines.length, first + most); last++) {
      got += lines[last]!;
      if (got < wanted) continue;
      const count = last - first + 1;
      if (!best || count < most || got > best.got)
        best = { span: { startLine: first + 1, endLine: last + 1 }, got };
      most = count;
      break;
    }
  }
  return best;
}
