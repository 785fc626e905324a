/** Why there is nothing to read where no file is left for the prompt: the end of a sentence that says so. */
import type { SkippedFile } from '../protocol';

/** `it is empty.`, or how much is left out for which reason, the commonest first. What git keeps is nothing that one could read. */
export function whyNothing(leftOut: readonly Pick<SkippedFile, 'path' | 'reason'>[]): string {
  const own = leftOut.filter(({ path }) => !/(^|\/)\.git\/?$/.test(path));
  if (own.length === 0) return 'it is empty.';
  const counts = new Map<string, number>();
  for (const { reason } of own) counts.set(reason, (counts.get(reason) ?? 0) + 1);
  const reasons = [...counts].sort((a, b) => b[1] - a[1]);
  const list = reasons.map(([reason, count]) => `${count} ${reason.replaceAll('-', ' ')}`).join(', ');
  return `all that is in it is left out (${list}).`;
}
