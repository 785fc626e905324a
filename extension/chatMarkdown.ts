/** A chat as a Markdown document: whatever was pasted or cut, each turn ends with itself. */
import type { Turn } from './chat/messages';
import { sourcesLine } from './chat/sourceText';

const opening = /^( {0,3})(`{3,}(?=[^`]*$)|~{3,})/;
const closing = /^ {0,3}(`{3,}|~{3,})\s*$/;

/** With a fence that is open at the end closed: an answer that was cut in its code would have all that follows as code. */
export function withFenceClosed(text: string): string {
  let open: { indent: string; marker: string } | undefined;
  for (const line of text.split('\n'))
    if (open) {
      if (closing.exec(line)?.[1]?.startsWith(open.marker)) open = undefined;
    } else {
      const [, indent = '', marker] = opening.exec(line) ?? [];
      if (marker) open = { indent, marker };
    }
  return open ? `${text}\n${open.indent}${open.marker}` : text;
}

/** Its first line, unless that begins code, is the heading. */
function questionMarkdown(question: string): string {
  const lines = question.trim().split('\n');
  const heading = opening.test(lines[0]!) ? 'Question' : lines.shift()!;
  const rest = lines.join('\n').replace(/^\n+/, '');
  return `## ${heading}${rest === '' ? '' : `\n\n${withFenceClosed(rest)}`}`;
}

export function chatMarkdown(turns: readonly Turn[]): string {
  return turns
    .map(({ question, answer, error, sources }) => {
      const said = withFenceClosed(answer.trim()) || (error ?? '');
      const line = sourcesLine(sources);
      return `${questionMarkdown(question)}\n\n${said}\n${line && `\n${line}`}`;
    })
    .join('\n');
}
