/** Bytes that stand in a text as base64: pictures in notebooks, fonts in style sheets, source maps. No model reads them. */

/** Shorter ones are keys, hashes and icons. */
const least = 1024;
/** In JSON a run may have escaped line breaks, after so many characters at least: lists of words have them sooner. */
const shortestLine = 60;
/** Names, hexadecimal numbers and genomes have not all of these. */
const kinds = [/[a-z]/, /[A-Z]/, /\d/];

const isBase64 = new Uint8Array(128);
for (let code = 0; code < 128; code++)
  isBase64[code] = Number(/[A-Za-z\d+/]/.test(String.fromCharCode(code)));

/** By hand: a regular expression would need a stack as deep as the run is long. */
function endOfRun(text: string, start: number): number {
  for (let line = start; ;) {
    let at = line;
    while (isBase64[text.charCodeAt(at)]) at++;
    const end =
      at - line < shortestLine ? 0 : text.startsWith('\\n', at) ? 2 : text.startsWith('\\r\\n', at) ? 4 : 0;
    if (end === 0 || !isBase64[text.charCodeAt(at + end)]) return at;
    line = at + end;
  }
}

function lineWithoutBase64(line: string): { text: string; kib: number } {
  let text = '';
  let sum = 0;
  let kept = 0;
  for (let at = 0; at < line.length;) {
    let end = endOfRun(line, at);
    if (end - at >= least && kinds.every((kind) => kind.test(line.slice(at, end)))) {
      while (line[end] === '=') end++;
      const kib = Math.ceil((end - at) / 1024);
      text += `${line.slice(kept, at)}[${kib.toLocaleString('en')} KiB of base64 left out]`;
      sum += kib;
      kept = end;
    }
    // What is escaped begins no run.
    at = end > at ? end : at + (line[at] === '\\' ? 2 : 1);
  }
  return { text: text + line.slice(kept), kib: sum };
}

/**
 * A text with a note in place of each long run, which says how long it was, and the sum of what the notes say. Lines stay what
 * they are.
 */
export function withoutBase64(whole: string): { text: string; base64KiB: number } {
  let base64KiB = 0;
  const lines = whole.split('\n').map((line) => {
    if (line.length < least) return line;
    const { text, kib } = lineWithoutBase64(line);
    base64KiB += kib;
    return text;
  });
  return { text: lines.join('\n'), base64KiB };
}
