/** `[path]`, `[path#symbol]` and `[path:L10-L12]` in an answer, checked against the packed files before they become links. */
import { pathToFileURL } from 'node:url';
import type { PackedFile } from '../prompt/pack';
import type { Citation, MissingPlace, Span } from '../protocol';

const pattern = /\[([^\][\s#:]+)(?:#([^\][\s]+)|:L?(\d+)(?:-L?(\d+))?)?\]/g;
const definition =
  /^\s*(?:export\s+|default\s+|public\s+|private\s+|protected\s+|static\s+|async\s+|pub\s+|abstract\s+|final\s+|declare\s+|const\s+|let\s+|var\s+)*(?:def|class|function|interface|type|struct|enum|trait|impl|fn|func|const|let|var|namespace|module)?\s*\*?\s*/;

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
  if (name === undefined) return undefined;
  const lines = text.split('\n');
  const owner = parts.length > 1 ? findName(lines, parts.at(-2)!, 0) : undefined;
  const line = (owner === undefined ? undefined : findName(lines, name, owner)) ?? findName(lines, name, 0);
  return line === undefined ? undefined : { startLine: line + 1, endLine: line + 1 };
}

function findName(lines: readonly string[], symbol: string, from: number): number | undefined {
  const name = escape(symbol);
  const keyword = new RegExp(
    `\\b(?:def|class|function\\*?|interface|type|struct|enum|trait|fn|func|namespace|module)\\s+(?:\\([^)]*\\)\\s*)?${name}(?![\\w$])`,
  );
  const assigned = new RegExp(`${definition.source}["']?${name}["']?\\s*(?::[^=]*)?[=(:]`);
  const mention = new RegExp(`(?<![\\w$])${name}(?![\\w$])`);
  for (const wanted of [keyword, assigned, mention])
    for (let line = from; line < lines.length; line++) if (wanted.test(lines[line]!)) return line;
  return undefined;
}

/** Identifiers that the sentence around a citation names: code spans, calls, and words no prose has. */
function namedAround(answer: string, offset: number): string[] {
  const start = Math.max(answer.lastIndexOf('\n', offset), answer.lastIndexOf('. ', offset)) + 1;
  const sentence = answer.slice(start, offset);
  const words = [
    ...sentence.matchAll(
      /`([A-Za-z_$][\w$.]*)[^`]*`|([A-Za-z_$][\w$]*)(?=\()|\b([A-Za-z]+_\w+|[A-Za-z]+[a-z][A-Z]\w*)\b/g,
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
    const mentioned = (name: string) => new RegExp(`(?<![\\w$])${escape(name)}(?![\\w$])`).test(near);
    if (named.some(mentioned)) return span;
  }
  for (const name of named) {
    const found = findSymbol(text, name);
    if (found) return found;
  }
  return undefined;
}

/** Whether brackets that name no file were meant to: `[0]`, `[string]` and `[first:10]` were not. */
const looksLikePath = /^[^'"`(),;]*\/[^'"`(),;]*$|^[\w.-]+\.[A-Za-z]\w{0,9}$/;

/**
 * The links of an answer, and the places that it names although they are not there: no such file among `files`, or no such
 * symbol in the file.
 */
export function checkCitations(
  answer: string,
  files: readonly PackedFile[],
): { citations: Citation[]; missing: MissingPlace[] } {
  const byPath = new Map(files.map((file) => [file.path, file]));
  const citations: Citation[] = [];
  const missing: MissingPlace[] = [];
  for (const match of answer.matchAll(pattern)) {
    const [text, path = '', symbol, from, to] = match;
    const file = byPath.get(path);
    if (!file) {
      if ((symbol ?? from) !== undefined && looksLikePath.test(path))
        missing.push({ text, why: `There is no ${path} among the files that were read.` });
      continue;
    }
    const citation: Citation = {
      text,
      offset: match.index,
      path,
      uri: pathToFileURL(file.absolutePath).href,
    };
    if (symbol) {
      const span = findSymbol(file.text, symbol);
      if (span) citations.push({ ...citation, symbol, span });
      else missing.push({ text, why: `${path} does not contain ${symbol}.` });
    } else if (from) {
      const wanted = { startLine: Number(from), endLine: Number(to ?? from) };
      const span = mendSpan(wanted, file.text, namedAround(answer, match.index));
      citations.push(span ? { ...citation, span } : citation);
    } else {
      citations.push(citation);
    }
  }
  return { citations, missing };
}
