/**
 * Texts for a terminal. What a model wrote, what a file is called and what a model file says of itself may hold control
 * characters, which would move the cursor, rename the window or fill the clipboard: they are shown instead.
 */
import type { LoadProgress } from './engine/engine';
import type { Source } from './protocol';
import { loadingMessage, paced } from './statusText';

/** Also marks that turn the direction of what follows: a path would read as another. */
const unseen = /[\p{Cc}\u202a-\u202e\u2066-\u2069]/gu;

const shown = (character: string) => `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`;

/** Of one line, as a path is. */
export function visible(text: string): string {
  return text.replace(unseen, shown);
}

/** Of several, with tabs. In JSON it means the same as before. */
export function visibleLines(text: string): string {
  return text.replace(unseen, (character) => (/[\n\t]/.test(character) ? character : shown(character)));
}

/** A result. */
export function print(text: string): void {
  console.log(visibleLines(text));
}

/** Progress, and what is wrong. */
export function tell(text: string): void {
  console.error(visibleLines(text));
}

/** At most one line a second. */
export function progressPrinter<Progress extends { done: number; total: number }>(
  message: (progress: Progress) => string,
): (progress: Progress) => void {
  return paced(1000, (progress) => tell(message(progress)));
}

/** Of a model that takes longer than a second to load, until it is there. */
export function loadingPrinter(name: string): (progress: LoadProgress) => void {
  const start = performance.now();
  const show = progressPrinter(({ done, total }: LoadProgress) => loadingMessage(name, done, total));
  return (progress) => {
    if (performance.now() - start >= 1000 && progress.done < progress.total) show(progress);
  };
}

export function showSources(sources: readonly Source[]): void {
  const shown = sources.slice(0, 3).map(({ path: file, span, share }) => {
    const end = span && span.endLine > span.startLine ? `-L${span.endLine}` : '';
    return `${file}${span ? `:L${span.startLine}${end}` : ''} (${Math.round(100 * share)} %)`;
  });
  if (shown.length > 0) tell(`Looked at most: ${shown.join(', ')}`);
}
