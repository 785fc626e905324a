/** `[path]`, `[path#symbol]` and `[path:L10-L12]` in an answer, checked against the packed files before they become links. */
import { extname } from 'node:path/posix';
import { pathToFileURL } from 'node:url';
import { nameKey, withSlashes } from '../platform/fileNames';
import type { PackedFile } from '../prompt/pack';
import type { Citation, MissingPlace, Span } from '../protocol';
import { matchesOutsideCode } from './codeRanges';

/**
 * Escaped brackets are none. A path and a heading may have spaces. A path may have brackets of its own,
 * `app/[slug]/[[...rest]]/page.tsx`: a few, so that open ones are not looked through to the end of the answer each time.
 * Hashes and colons end it, and brackets of other kinds, but where one of `paths` has its own, as in `C#/Program.cs`.
 */
function placePattern(paths: readonly string[]): RegExp {
  const plain = String.raw`[^\][\s#:]`;
  const spaced = String.raw`[^\][\n\r\t#:]`;
  const inner = String.raw`(?<=[\][/\w.@-])(?:\[${plain}+\]|\[\[${plain}+\]\])`;
  const path = String.raw`(?!\[${plain}+\]\])(?=\[|${plain})${spaced}*(?:${inner}${spaced}*){0,8}`;
  const own = [...paths]
    .sort((a, b) => b.length - a.length)
    .map((known) => String.raw`(?:\.?\/)*${escape(known)}|`);
  const place = String.raw`#([^\][\s][^\][\n\r\t]*)|:L?(\d+)(?:-L?(\d+))?`;
  return new RegExp(String.raw`(?<!\\)\[(${own.join('')}${path})(?:${place})?\]`, 'g');
}
const pattern = placePattern([]);

/** For an answer about these files. */
function patternFor(answer: string, files: readonly PackedFile[]): RegExp {
  const own = files.map(({ path }) => path).filter((path) => /[#:[]/.test(path) && answer.includes(path));
  return own.length > 0 ? placePattern(own) : pattern;
}

/** No two parts of it take the same spaces: a line of nothing else would be tried in every way to share them. */
const definition =
  /^\s*(?:(?:export|default|public|private|protected|static|async|pub|abstract|final|declare|const|let|var)\s+)*(?:(?:def|class|function|interface|type|struct|enum|trait|impl|fn|func|const|let|var|namespace|module)(?=[\s*])\s*)?(?:\*\s*)?/;
/** What C, Java and their kin write before a function's name: modifiers and a type, no word that calls it. */
const behindType =
  /^\s*(?!(?:return|new|else|throw|case|await|yield|typeof|delete|not|and|or|in|of|if|elif|unless|when|guard|for|while|until|switch|match|go|defer|assert|raise|print|echo)\b)(?:[\p{ID_Continue}$:.,<>?@[\]]+[\s*&]+)+(?:[\p{ID_Continue}$]+(?:::|\.))*/u;
/** Longer names are none. */
const maxName = 200;

function escape(text: string): string {
  return text.replace(/[.*+?^${}()|[\]\\]/g, '\\$&');
}

/**
 * Lines of a symbol: the first definition-like line, else the first assignment, else the first mention. `Class.method` is
 * looked for behind the class first.
 */
export function findSymbol(text: string, symbol: string): Span | undefined {
  const parts = symbol.split(/[.#]|::/).filter((part) => part !== '');
  const name = parts.at(-1);
  if (name === undefined || symbol.length > maxName || !text.includes(name)) return undefined;
  const lines = text.split('\n');
  const owner = parts.length > 1 ? findName(lines, parts.at(-2)!, 0) : undefined;
  const line = (owner === undefined ? undefined : findName(lines, name, owner)) ?? findName(lines, name, 0);
  return line === undefined ? undefined : lineSpan(line);
}

function lineSpan(index: number): Span {
  return { startLine: index + 1, endLine: index + 1 };
}

/** Of a line that is kept with a place: what is longer was made. */
const maxKept = 200;

/** A span of a text, with what its first line says; nothing for no span. */
export function placeIn(text: string, span: Span | undefined): { span?: Span; firstLine?: string } {
  if (!span) return {};
  const firstLine = text.split('\n', span.startLine)[span.startLine - 1]?.trim() ?? '';
  return firstLine !== '' && firstLine.length <= maxKept ? { span, firstLine } : { span };
}

/** No name stands before or behind it as a part of a longer one, in whatever script. */
const notInName = String.raw`[\p{ID_Continue}$]`;

function findName(lines: readonly string[], symbol: string, from: number): number | undefined {
  const name = escape(symbol);
  const whole = `${name}(?!${notInName})`;
  const keyword = new RegExp(
    `\\b(?:def|class|function\\*?|interface|type|struct|enum|trait|fn|fun|func|namespace|module)\\s+(?:\\([^()]*\\)\\s*)?${whole}|` +
      `^\\s*#\\s*define\\s+${whole}|^[-+]\\s*\\([^()]*\\)\\s*${whole}`,
    'u',
  );
  const typed = new RegExp(`${behindType.source}${name}\\s*(?=\\()`, 'u');
  const assigned = new RegExp(`${definition.source}["']?${name}["']?\\s*(?::[^=]*)?[=(:]`, 'u');
  const mention = new RegExp(`(?<!${notInName})${whole}`, 'u');
  const tests = [
    (line: number) => keyword.test(lines[line]!),
    (line: number) => hasBody(lines, line, typed.exec(lines[line]!)?.[0].length),
    (line: number) => assigned.test(lines[line]!),
    (line: number) => mention.test(lines[line]!),
  ];
  for (const isWanted of tests)
    for (let line = from; line < lines.length; line++) if (isWanted(line)) return line;
  return undefined;
}

/** Of a parameter list, with what may stand between it and the body. */
const maxParameterLines = 10;

/** Whether parameters, then a body follow at a place of a line: `foo(int x) throws E {`. A call has none. */
function hasBody(lines: readonly string[], line: number, at: number | undefined): boolean {
  if (at === undefined) return false;
  const rest = [lines[line]!.slice(at), ...lines.slice(line + 1, line + maxParameterLines)].join('\n');
  return /^\([^();{}]*\)[^();={}]*(?:\{|=>)/.test(rest);
}

/** Characters before a citation that its sentence may have: an answer without a full stop is not read again for each. */
const maxSentence = 500;

/** Identifiers that the sentence around a citation names: code spans, calls, and words no prose has. */
function namedAround(answer: string, offset: number): string[] {
  const before = answer.slice(Math.max(0, offset - maxSentence), offset);
  const sentence = before.slice(Math.max(before.lastIndexOf('\n'), before.lastIndexOf('. ')) + 1);
  const words = [
    ...sentence.matchAll(
      /`([\p{ID_Start}_$][\p{ID_Continue}$.]*)[^`]*`|([\p{ID_Start}_$][\p{ID_Continue}$]*)(?=\()|(?<!\p{ID_Continue})(\p{L}+_\p{ID_Continue}+|\p{L}+\p{Ll}\p{Lu}\p{ID_Continue}*)/gu,
    ),
  ];
  return words
    .map((word) => (word[1] ?? word[2] ?? word[3] ?? '').split('.').at(-1) ?? '')
    .filter((word) => word !== '');
}

/** Lines around a span in which what the sentence names must stand: small models cannot count lines. */
const slack = 3;

/** The span, or where what the sentence names stands, or undefined: a link to the file alone. */
function mendSpan(span: Span, text: string, named: readonly string[]): Span | undefined {
  const lines = text.split('\n');
  const inside = span.startLine >= 1 && span.startLine <= span.endLine && span.endLine <= lines.length;
  if (inside) {
    const near = lines.slice(Math.max(0, span.startLine - 1 - slack), span.endLine + slack).join('\n');
    const mentioned = (name: string) =>
      new RegExp(`(?<!${notInName})${escape(name)}(?!${notInName})`, 'u').test(near);
    if (named.some(mentioned)) return span;
  }
  for (const name of named) {
    const found = findSymbol(text, name);
    if (found) return found;
  }
  return undefined;
}

/** The line of a heading of a Markdown file, by its anchor as GitHub makes it. */
function findHeading(text: string, anchor: string): Span | undefined {
  const slug = (heading: string) =>
    heading
      .toLowerCase()
      .replace(/[^\p{L}\p{M}\p{N}\p{Pc} -]/gu, '')
      .trim()
      .replaceAll(' ', '-');
  const wanted = slug(anchor);
  const line = text.split('\n').findIndex((line) => /^ {0,3}#{1,6}[ \t]/.test(line) && slug(line) === wanted);
  return line < 0 ? undefined : lineSpan(line);
}

/** `Foo.method()`, `Foo<T>` and a name in quotes without what is not of the name. */
function nameOf(symbol: string): string {
  return symbol.replace(/^[`'"]+/, '').replace(/[`'"(<].*/, '') || symbol;
}

/**
 * Tells of a path that names no packed file whether it was meant to: it has an extension that one of them has, or begins
 * with one of their folders. `[n/2:10]` and `[db.internal:5432]` were not, nor `[see io.py:3]`: with spaces only a folder tells.
 */
function pathTest(files: readonly PackedFile[]): (path: string) => boolean {
  const folderOf = (path: string) => nameKey(path.slice(0, path.indexOf('/') + 1));
  const extensions = new Set(files.map(({ path }) => extname(path)));
  const folders = new Set(files.map(({ path }) => folderOf(path)));
  return (path) =>
    (extname(path) !== '' && extensions.has(extname(path)) && !path.includes(' ')) ||
    (folderOf(path) !== '' && folders.has(folderOf(path)));
}

/** A symbol's lines; in Markdown, a heading's. */
function findPlace({ path, text }: PackedFile, name: string): Span | undefined {
  return (/\.md$/i.test(path) ? findHeading(text, name) : undefined) ?? findSymbol(text, name);
}

/** The path of the first file that has a name. All of them are searched, once for each name. */
function holderSearch(files: readonly PackedFile[]): (name: string) => string | undefined {
  const found = new Map<string, string | undefined>();
  return (name) => {
    if (!found.has(name)) found.set(name, files.find((file) => findPlace(file, name))?.path);
    return found.get(name);
  };
}

/** Of an answer. */
export interface Places {
  citations: Citation[];
  missing: MissingPlace[];
}

/** A place that an answer names: a link, or none such, with the reason. */
type Named = Citation | (MissingPlace & { offset: number });

/** In their order: no such file among `files`, or no such symbol in the file, makes it a missing one. */
function* placesIn(answer: string, files: readonly PackedFile[]): Generator<Named> {
  const byPath = new Map(files.map((file) => [nameKey(file.path), file]));
  for (const file of files) byPath.set(file.path, file);
  const looksLikePath = pathTest(files);
  const holderOf = holderSearch(files);
  for (const match of matchesOutsideCode(answer, patternFor(answer, files))) {
    const [text, written = '', anchor, from, to] = match;
    const offset = match.index;
    const end = offset + text.length;
    // The panel makes a link of it that leads there.
    if (answer.startsWith('(https://', end)) continue;
    // Else it is an index into something, or a link's label.
    const standsAlone = !/[\w\])]/.test(answer.charAt(offset - 1)) && answer[end] !== '(';
    const named = withSlashes(written).replace(/^(?:\.?\/)+/, '');
    const file = byPath.get(named) ?? byPath.get(nameKey(named));
    if (!file) {
      if (standsAlone && (anchor ?? from) !== undefined && looksLikePath(named))
        yield { text, offset, why: `There is no ${named} among the files that were read.` };
      continue;
    }
    const { path } = file;
    const uri = pathToFileURL(file.absolutePath).href;
    const citation: Citation = { text, offset, path, uri };
    const symbol = anchor && nameOf(anchor);
    const place = symbol && findPlace(file, symbol);
    // Lines as `#L2-L3` or `:L2-L3`.
    const [, first = from, last = to ?? first] = /^L(\d+)(?:-L?(\d+))?$/.exec(anchor ?? '') ?? [];
    if (place) {
      yield { ...citation, symbol, ...placeIn(file.text, place) };
    } else if (first) {
      const wanted = { startLine: Number(first), endLine: Number(last) };
      const span = mendSpan(wanted, file.text, namedAround(answer, offset));
      yield { ...citation, ...placeIn(file.text, span) };
    } else if (!symbol) {
      yield citation;
    } else if (standsAlone) {
      const holder = holderOf(symbol);
      const why = holder
        ? `${path} does not contain ${symbol}; ${holder} does.`
        : `No file that was read contains ${symbol}.`;
      yield { text, offset, why };
    }
  }
}

/** The links of an answer, and the places that it names although they are not there. */
export function checkCitations(answer: string, files: readonly PackedFile[]): Places {
  const citations: Citation[] = [];
  const missing = new Map<string, MissingPlace>();
  for (const place of placesIn(answer, files))
    if ('why' in place) missing.set(place.text, { text: place.text, why: place.why });
    else citations.push(place);
  return { citations, missing: [...missing.values()] };
}

/** An answer where nothing can be a link: places as `path:12`, those that are not there marked. */
export function withPlainPlaces(answer: string, files: readonly PackedFile[]): string {
  let plain = '';
  let end = 0;
  for (const place of placesIn(answer, files)) {
    const { text, offset } = place;
    plain += answer.slice(end, offset);
    if ('why' in place) plain += `${text.slice(1, -1)} (not found)`;
    else plain += place.span ? `${place.path}:${place.span.startLine}` : place.path;
    end = offset + text.length;
  }
  return plain + answer.slice(end);
}
