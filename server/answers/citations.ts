/** `[path]`, `[path#symbol]` and `[path:L10-L12]` in an answer, checked against the packed files before they become links. */
import { pathToFileURL } from 'node:url';
import type { PackedFile } from '../prompt/pack';
import type { Citation, Span } from '../protocol';

const pattern = /\[([^\][\s#:]+)(?:#([^\][\s]+)|:L?(\d+)(?:-L?(\d+))?)?\]/g;
const definition =
  /^\s*(?:export\s+|default\s+|public\s+|private\s+|protected\s+|static\s+|async\s+|pub\s+|abstract\s+|final\s+|declare\s+|const\s+|let\s+|var\s+)*(?:def|class|function|interface|type|struct|enum|trait|impl|fn|func|const|let|var|namespace|module)?\s*\*?\s*/;

function escape(text: string): string {
  return text.replace(/[.*+?^${}()|[\]\\]/g, '\\$&');
}

/** Lines of a symbol: the first definition-like line, else the first assignment, else the first mention. */
export function findSymbol(text: string, symbol: string): Span | undefined {
  const lines = text.split('\n');
  const name = escape(symbol.split(/[.#]|::/).at(-1) ?? symbol);
  const keyword = new RegExp(
    `\\b(?:def|class|function\\*?|interface|type|struct|enum|trait|fn|func|namespace|module)\\s+(?:\\([^)]*\\)\\s*)?${name}\\b`,
  );
  const assigned = new RegExp(`${definition.source}["']?${name}["']?\\s*(?::[^=]*)?[=(:]`);
  const mention = new RegExp(`(?<![\\w$])${name}(?![\\w$])`);
  for (const wanted of [keyword, assigned, mention]) {
    const line = lines.findIndex((text) => wanted.test(text));
    if (line >= 0) return { startLine: line + 1, endLine: line + 1 };
  }
  return undefined;
}

/** The links of an answer; what names no packed file or no line of it stays plain text. */
export function findCitations(answer: string, files: readonly PackedFile[]): Citation[] {
  const byPath = new Map(files.map((file) => [file.path, file]));
  const citations: Citation[] = [];
  for (const match of answer.matchAll(pattern)) {
    const [text, path = '', symbol, from, to] = match;
    const file = byPath.get(path);
    if (!file) continue;
    const citation: Citation = {
      text,
      offset: match.index,
      path,
      uri: pathToFileURL(file.absolutePath).href,
    };
    if (symbol) {
      const span = findSymbol(file.text, symbol);
      if (!span) continue;
      citations.push({ ...citation, symbol, span });
    } else if (from) {
      const span = { startLine: Number(from), endLine: Number(to ?? from) };
      const inside =
        span.startLine >= 1 && span.startLine <= span.endLine && span.endLine <= file.text.split('\n').length;
      citations.push(inside ? { ...citation, span } : citation);
    } else {
      citations.push(citation);
    }
  }
  return citations;
}
