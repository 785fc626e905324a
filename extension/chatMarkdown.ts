/** A chat as a Markdown document: whatever was pasted or cut, each turn ends with itself. */
import MarkdownIt from 'markdown-it';
import type { Turn } from './chat/messages';
import { sourcesLine } from './chat/sourceText';

/** Of blocks alone. */
const markdown = new MarkdownIt().disable('inline');

/** With a fence that is open at the end closed: an answer that was cut in its code would have all that follows as code. */
export function withFenceClosed(text: string): string {
  // A heading, unless it is behind an open fence.
  const last = markdown.parse(`${text}\n#`, {}).at(-1);
  if (last?.type !== 'fence') return text;
  const [indent] = /^ */.exec(text.split('\n')[last.map![0]]!)!;
  return `${text}\n${indent}${last.markup}`;
}

/** Its first line, unless that begins code, is the heading. */
function questionMarkdown(question: string): string {
  const lines = question.trim().split('\n');
  const heading = markdown.parse(question.trim(), {})[0]?.type === 'fence' ? 'Question' : lines.shift()!;
  const rest = lines.join('\n').replace(/^\n+/, '');
  return `## ${heading}${rest === '' ? '' : `\n\n${withFenceClosed(rest)}`}`;
}

/** What stays as it is, escaped characters and code; a picture; a tag. */
const loading = /\\[^]|(`+)(?!`)[^]*?(?<!`)\1(?!`)|`+|!\[|<(?=[a-z!/?])/gi;
function escaped(text: string): string {
  return text.replace(loading, (found) => {
    if (found.startsWith('\\')) return found;
    // Before code comes HTML that begins a line.
    return found.startsWith('`') ? found.replace(/(\n[ \t>]*)</g, '$1\\<') : found.replace(/[[<]/, '\\$&');
  });
}

/**
 * As the panel shows it: without pictures and HTML, by which a preview of the document would load what a model was told by a
 * file to have loaded.
 */
export function withNothingToLoad(text: string): string {
  const lines = text.split('\n');
  for (const { type, map } of markdown.parse(text, {})) {
    if (!map || (type !== 'inline' && type !== 'tr_open')) continue;
    const [start, end] = map;
    const block = lines.slice(start, end).join('\n');
    // Code ends with its cell.
    const parts = type === 'tr_open' ? block.split('|') : [block];
    lines.splice(start, end - start, ...parts.map(escaped).join('|').split('\n'));
  }
  return lines.join('\n');
}

export function chatMarkdown(turns: readonly Turn[]): string {
  return turns
    .map(({ question, answer, error, sources }) => {
      const said = withFenceClosed(withNothingToLoad(answer.trim())) || (error ?? '');
      const line = sourcesLine(sources);
      return `${questionMarkdown(question)}\n\n${said}\n${line && `\n${line}`}`;
    })
    .join('\n');
}
