/** Where the lines of a place are now, in a file that was edited after it was read. */
import type { Citation } from '../server/protocol';

/**
 * The span, moved to the nearest line that says what its first line did; as it was where that stands there still, is gone, or
 * says too little to be known by, as a bracket does.
 */
export function movedSpan(
  text: string,
  { span, firstLine = '' }: Pick<Citation, 'span' | 'firstLine'>,
): Citation['span'] {
  if (!span || !/[\p{L}\p{N}_]{3}/u.test(firstLine)) return span;
  const lines = text.split('\n').map((line) => line.trim());
  const at = span.startLine - 1;
  for (let by = 0; by < Math.max(lines.length, at + 1); by++)
    for (const line of [at - by, at + by])
      if (lines[line] === firstLine)
        return { startLine: line + 1, endLine: line + 1 + span.endLine - span.startLine };
  return span;
}
