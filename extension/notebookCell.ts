/** Which cell of a notebook a line of its file belongs to: people see cells, where answers name lines. */

/**
 * Counted from 0, as line numbers are from 1. Undefined where the line is in no cell, or the file no notebook. By hand: only the
 * brackets up to the line matter, and the file may be broken behind it.
 */
export function cellAtLine(text: string, line: number): number | undefined {
  let newLines = 0;
  let depth = 0;
  let key = '';
  let cells = -1;
  for (let at = 0; at < text.length && newLines < line; at++) {
    const character = text[at];
    if (character === '\n') newLines++;
    else if (character === '"') {
      const start = at + 1;
      for (at = start; at < text.length && text[at] !== '"'; at++) if (text[at] === '\\') at++;
      if (depth === 1) key = text.slice(start, at);
    } else if (character === '{' || character === '[') {
      depth++;
      if (depth === 3 && key === 'cells') cells++;
    } else if (character === '}' || character === ']') depth--;
  }
  return depth >= 2 && key === 'cells' && cells >= 0 ? cells : undefined;
}
