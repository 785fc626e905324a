/** What an answer was read from, in words. For the panel and the exported chat. */
import type { Source } from '../../server/protocol';

/** `:8–12` behind a path; empty for a whole file. */
export function linesOf({ span }: Pick<Source, 'span'>): string {
  if (!span) return '';
  return span.endLine > span.startLine ? `:${span.startLine}–${span.endLine}` : `:${span.startLine}`;
}

export function percent(share: number): string {
  return `${Math.round(100 * share)} %`;
}

/** Names of the first two files, whole paths where names are the same, and how many more there are. */
export function briefly(sources: readonly Source[]): string {
  const nameOf = (path: string) => path.slice(path.lastIndexOf('/') + 1);
  const names = sources.slice(0, 2).map(({ path }) => {
    const name = nameOf(path);
    return sources.filter((other) => nameOf(other.path) === name).length > 1 ? path : name;
  });
  const more = sources.length - names.length;
  return names.join(', ') + (more > 0 ? ` +${more}` : '');
}

/** A line of Markdown; empty where there are none. What a file is called does not end its place as code. */
export function sourcesLine(sources: readonly Source[] = []): string {
  const places = sources.map((source) => {
    const path = source.path.replaceAll('`', "'");
    return `\`${path}${linesOf(source)}\` (${percent(source.share)})`;
  });
  return places.length === 0 ? '' : `Looked at most: ${places.join(', ')}\n`;
}
