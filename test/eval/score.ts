/** Judges answers against the answer key. */
import type { Citation } from '../../server/protocol';
import type { Question } from './questions';
import { definitions, type SourceFile } from './symbols';

export interface Verdict {
  right: boolean;
  /** The answer says that it found nothing. */
  refused: boolean;
  /** What is wrong, for people. */
  fault?: string;
  links: number;
  /** Links that do not point at a line of the symbol they name. */
  wrongLinks: string[];
}

export function judge(
  question: Question,
  answer: string,
  citations: Citation[],
  files: SourceFile[],
): Verdict {
  const refused = /\b(can(?:'|’)?t|cannot|could(?:n(?:'|’)t| not)) find\b/i.test(answer);
  const linked = citations.filter((citation) => citation.span);
  const wrongLinks = linked
    .map((citation) => faultOfLink(citation, question, files))
    .filter((f) => f !== undefined);
  const fault = faultOfAnswer(question, answer, refused, files);
  return { right: fault === undefined, refused, fault, links: linked.length, wrongLinks };
}

function faultOfAnswer(
  question: Question,
  answer: string,
  refused: boolean,
  files: SourceFile[],
): string | undefined {
  const { definition } = question;
  if (!definition) return refused ? undefined : 'does not say that the name cannot be found';
  if (refused) return 'says that an existing name cannot be found';
  if (question.kind === 'where') {
    const path = firstPath(answer, files);
    if (!path) return 'names no file';
    return path === definition.path ? undefined : `names ${path} instead of ${definition.path}`;
  }
  return statesLiteral(answer, definition.literal!) ? undefined : `does not state ${definition.literal!}`;
}

/** The first path of a packed file that the answer names; of two that start at the same place, the longer. */
function firstPath(answer: string, files: SourceFile[]): string | undefined {
  let best: { at: number; path: string } | undefined;
  for (const { path } of files) {
    const name = new RegExp(`(?<![\\w/.-])${escapeRegExp(path)}(?![\\w/-])`);
    const at = answer.search(name);
    if (at < 0) continue;
    if (!best || at < best.at || (at === best.at && path.length > best.path.length)) best = { at, path };
  }
  return best?.path;
}

/** Exactly, as a word of its own outside citations; strings with or without their quotes, in code or quotation marks. */
function statesLiteral(answer: string, literal: string): boolean {
  const text = answer.replace(/\[[^\]\n]*\.\w+(#[^\]\n]*)?\]/g, ' ');
  const content = literal.replace(/^(['"])(.*)\1$/, '$2');
  if (content === literal)
    return new RegExp(`(?<![\\w.])${escapeRegExp(literal)}(?![\\w]|\\.\\d)`).test(text);
  return ['`', '"', "'", '“'].some((mark) => {
    const end = mark === '“' ? '”' : mark;
    return (
      text.includes(mark + content + end) ||
      text.includes(`\`"${content}"`) ||
      text.includes(`\`'${content}'`)
    );
  });
}

/** A link is shown with lines: they must hold the definition of the symbol that the link names. */
function faultOfLink(citation: Citation, question: Question, files: SourceFile[]): string | undefined {
  const { startLine, endLine } = citation.span!;
  const where = `${citation.text} -> ${citation.path}:${startLine}-${endLine}`;
  const file = files.find((candidate) => candidate.path === citation.path);
  if (!file) return `${where}: no such file in the prompt`;
  const symbol = citation.symbol?.split(/[.:#/]+/).pop() ?? question.name;
  const known = definitions(file).filter((definition) => definition.name === symbol);
  if (known.length > 0) {
    if (known.some(({ line }) => startLine <= line && line <= endLine)) return undefined;
    return `${where}: ${symbol} is defined in line ${known.map((definition) => definition.line).join(', ')}`;
  }
  const shown = file.text.split('\n').slice(startLine - 1, endLine);
  const word = new RegExp(`(?<![\\w$])${escapeRegExp(symbol)}(?![\\w$])`);
  return shown.some((line) => word.test(line)) ? undefined : `${where}: the lines do not name ${symbol}`;
}

function escapeRegExp(text: string): string {
  return text.replace(/[.*+?^${}()|[\]\\]/g, '\\$&');
}
