/** The bytes of a file as text: UTF-8, UTF-16 with a mark, an encoding that the user named, or windows-1252. */
import path from 'node:path';
import { nameKey } from '../platform/fileNames';
import type { FileEncoding, SkipReason } from '../protocol';

/** What bytes 80 to 9F are in windows-1252: TextDecoder of Node 20 takes it for Latin-1, where they are control characters. */
const windows1252 = '€\x81‚ƒ„…†‡ˆ‰Š‹Œ\x8dŽ\x8f\x90‘’“”•–—˜™š›œ\x9džŸ';

/** Names of VS Code's setting that the platform has another word for; `shiftjis` only lacks its hyphen. */
const otherNames = new Map([
  ['macroman', 'macintosh'],
  ['cp950', 'big5'],
]);

/** Undefined for an encoding that the platform does not have. */
function decoderOf(name: string, fatal: boolean): ((bytes: Uint8Array) => string) | undefined {
  const label = otherNames.get(name) ?? name.replace(/^(windows|shift|euc|koi8|big5)(?=[a-z\d])/i, '$1-');
  try {
    const decoder = new TextDecoder(label, { fatal });
    if (decoder.encoding !== 'windows-1252') return (bytes) => decoder.decode(bytes);
  } catch {
    return undefined;
  }
  return (bytes) =>
    Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
      .toString('latin1')
      .replace(/[\x80-\x9f]/g, (character) => windows1252[character.charCodeAt(0) - 0x80]!);
}

export function isKnownEncoding(name: string): boolean {
  return decoderOf(name, true) !== undefined;
}

/** Undefined for bytes that are no text of an encoding. */
function decode(bytes: Uint8Array, name: string): string | undefined {
  try {
    return decoderOf(name, true)?.(bytes);
  } catch {
    return undefined;
  }
}

/** By the mark that editors on Windows begin UTF-16 with. */
function markedEncoding(bytes: Uint8Array): 'utf-16le' | 'utf-16be' | undefined {
  if (bytes[0] === 0xff && bytes[1] === 0xfe) return 'utf-16le';
  return bytes[0] === 0xfe && bytes[1] === 0xff ? 'utf-16be' : undefined;
}

/** Text has none but those of white space, and DOS's end of a file. */
const isControl = (byte: number) =>
  byte === 0x7f || (byte < 0x20 && ![0x09, 0x0a, 0x0c, 0x0d, 0x1a].includes(byte));

/** No-break spaces stand beside anything. */
const isBeyond = (byte: number) => byte > 0x7f && byte !== 0xa0;
const other = String.raw`[^\0-\x7f\xa0]`;
const letter = String.raw`(?![A-Za-z])\p{L}`;
/**
 * Western languages write their letters beyond ASCII among those of ASCII, or alone, and signs at the edges of words. Russian,
 * Greek, Chinese and others have words of nothing else; what DOS called letters are signs in windows-1252.
 */
const atHome = new RegExp(
  `(?<=[A-Za-z])${letter}|${letter}(?=[A-Za-z])|` +
    `(?<!${other})(?:${letter}|[’–—]|${other}(?![A-Za-z])|(?<![A-Za-z])${other})(?!${other})`,
  'gu',
);
/** Of the text, at most; and of these, at least so many are at home: encoding.test.ts has messages in nine languages that chose it. */
const mostBeyond = 1 / 4;
const leastAtHome = 3 / 4;

/** As windows-1252, where it looks like that. */
function western(bytes: Uint8Array): string | undefined {
  let beyond = 0;
  for (const byte of bytes) if (isBeyond(byte)) beyond++;
  if (beyond > mostBeyond * bytes.length) return undefined;
  const text = decode(bytes, 'windows-1252')!;
  // What it leaves undefined.
  if (/[\x80-\x9f]/.test(text)) return undefined;
  return (text.match(atHome)?.length ?? 0) >= leastAtHome * beyond ? text : undefined;
}

/** Tells what encoding a file is said to be in where it is not UTF-8; undefined where nothing else is said. */
export function namedEncodings(
  encodings: readonly FileEncoding[] = [],
): (absolutePath: string) => string | undefined {
  const known = encodings.map(({ folder, endings, encoding }) => ({
    folder: folder === undefined ? '' : nameKey(path.join(folder, path.sep)),
    endings: endings?.map((ending) => ending.toLowerCase()) ?? [''],
    encoding,
  }));
  return (file) => {
    const [key, lower] = [nameKey(file), file.toLowerCase()];
    const named = known.find(
      ({ folder, endings }) => key.startsWith(folder) && endings.some((ending) => lower.endsWith(ending)),
    )?.encoding;
    return named && !/^utf/i.test(named) ? named : undefined;
  };
}

/** Lines end in a line feed, whatever they end in on disk or in the editor. */
export const withLineFeeds = (text: string) => text.replace(/\r\n?/g, '\n');

/**
 * As the editor shows it where it knows the encoding, without the mark at its beginning, lines ending in a line feed. `named`:
 * what a file that is not UTF-8 is in, as VS Code or the Encoding Standard calls it; absent, windows-1252 alone is recognised.
 */
export function decodeText(
  bytes: Uint8Array,
  named?: string,
): { text: string } | { reason: SkipReason; detail?: string } {
  const marked = markedEncoding(bytes);
  if (!marked && bytes.subarray(0, 8192).includes(0)) return { reason: 'binary' };
  const unicode = decode(bytes, marked ?? 'utf-8');
  if (unicode !== undefined)
    return marked && unicode.includes('\0') ? { reason: 'binary' } : { text: withLineFeeds(unicode) };
  if (marked) return { reason: 'invalid-utf8' };
  if (bytes.some(isControl)) return { reason: 'binary' };
  const text = named === undefined ? western(bytes) : decode(bytes, named);
  if (text !== undefined) return { text: withLineFeeds(text) };
  if (named === undefined) return { reason: 'invalid-utf8' };
  const detail = isKnownEncoding(named)
    ? `not ${named} either`
    : `${named} is an encoding that cannot be read`;
  return { reason: 'invalid-utf8', detail };
}

/**
 * What an editor may show for a file that nobody edited: it takes all for UTF-8, or for what its setting names, with
 * replacement characters where they are not. Nothing for a file that is not read.
 */
export function shownTexts(bytes: Uint8Array, named = 'utf-8'): string[] {
  const read = decodeText(bytes, named === 'utf-8' ? undefined : named);
  if (!('text' in read)) return [];
  const shown = ['utf-8', named].flatMap((name) => decoderOf(name, false)?.(bytes) ?? []);
  return [read.text, ...shown.map(withLineFeeds)];
}
