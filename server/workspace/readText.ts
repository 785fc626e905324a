/** The text of a file as the prompt gets it, or why it has no place there. */
import { promises as fs } from 'node:fs';
import { plainFile } from '../plainFile';
import type { SkipReason } from '../protocol';
import { withoutBase64 } from './base64';
import { decodeText } from './encoding';
import { kib } from './kib';
import type { ScannedFile } from './scan';
import { secretIn } from './secrets';

export interface FileText {
  text: string;
  /** How much base64 it is without. */
  base64KiB: number;
}

/** Why a file is not read. */
export interface TextFault {
  reason: SkipReason;
  detail?: string;
}

/**
 * The text of a scanned file, or why it has none. Opened without following a link that took its place. Lines end in a line
 * feed, whatever they end in on disk: line numbers stay the editor's.
 */
export async function readText(
  file: Pick<ScannedFile, 'path' | 'absolutePath' | 'encoding' | 'maxTextBytes'>,
): Promise<FileText | TextFault> {
  let bytes: Buffer;
  try {
    bytes = await fs.readFile(file.absolutePath, plainFile);
  } catch {
    return { reason: 'unreadable' };
  }
  const decoded = decodeText(bytes, file.encoding);
  return 'text' in decoded ? textOf(file, decoded.text) : decoded;
}

/** The part of a file's text, or of what an editor holds of it, that has its place in the prompt: all but long base64. */
export function textOf(
  { path, maxTextBytes = Infinity }: Pick<ScannedFile, 'path' | 'maxTextBytes'>,
  whole: string,
): FileText | TextFault {
  const read = withoutBase64(whole);
  const { text } = read;
  const bytes = Buffer.byteLength(text);
  if (bytes > maxTextBytes) return { reason: 'too-large', detail: `${kib(bytes)} without base64` };
  return textFault(path, text, whole) ?? read;
}

/**
 * What a tokenizer takes for a run that it does not split grows with the square of its bytes: up to half a second for this many
 * characters, and two for the squares of all runs of a file.
 */
const longestRun = 16_384;
const mostSquares = 2 ** 30;
/** As tokenizers' patterns tell them apart: marks go on with words in some, with signs in others; white space is Unicode's. */
const runs = [/[\p{L}\p{M}]+|\p{N}+|\p{White_Space}+/gu, /[^\p{L}\p{N}\p{White_Space}]+/gu];

/** Why a text has no place in the prompt; undefined where it has. A key may be in what was left out of the `whole`. */
export function textFault(file: string, text: string, whole = text): TextFault | undefined {
  try {
    return faultOf(file, text, whole);
  } catch {
    // A regular expression needs a stack as deep as what it matches is long.
    return generated('one unbroken run of millions of characters');
  }
}

function faultOf(file: string, text: string, whole: string): TextFault | undefined {
  const secret = secretIn(whole);
  if (secret) return { reason: 'secret', detail: `it holds ${secret}` };
  const lines = text.split('\n').length;
  if (/\.(js|css|mjs|cjs)$/.test(file) && text.length > 20_000 && text.length / lines > 400)
    return { reason: 'minified' };
  if (text.trim() === '') return { reason: 'empty' };
  if (Buffer.byteLength(text) <= longestRun) return undefined;
  let squares = 0;
  for (const kind of runs)
    for (const { 0: run } of text.matchAll(kind)) {
      squares += Buffer.byteLength(run) ** 2;
      const characters = () => `${run.length.toLocaleString('en')} characters`;
      if (run.length > longestRun) return generated(`one unbroken run of ${characters()}`);
      if (squares > mostSquares) return generated(`unbroken runs as long as ${characters()}`);
    }
  return undefined;
}

const generated = (detail: string) => ({ reason: 'generated' as const, detail });
