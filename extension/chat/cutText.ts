/** What cut an answer off, and what helps. */
import type { Turn } from './messages';

/** Undefined where it came to its end. */
export function cutText({ finish, full }: Pick<Turn, 'finish' | 'full'>): string | undefined {
  if (finish === 'length') return 'The answer was cut at its longest length.';
  if (finish !== 'window') return undefined;
  const helps = full === 'repository' ? 'Ask something shorter, or leave out files.' : 'Begin a new chat.';
  return `The answer was cut: the model's window is full. ${helps}`;
}
