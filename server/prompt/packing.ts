/** A prompt and how it came about: what is kept of a packing, also between processes, and what can be told from it. */
import type { SkippedFile } from '../protocol';

/** What the prompt holds of a file. */
export interface Entry {
  path: string;
  absolutePath: string;
  /** Absent until it was read, after the packing came from disk. */
  text?: string;
  /** How much base64 the text is without; absent as it is. */
  base64KiB?: number;
  /** Of the text, SHA-256. */
  hash: string;
  tokens: number;
  version: number;
  bytes: number;
  /** -1: not the file's own text. */
  ctimeMs: number;
}

/** A file that is not in the prompt, as it was when that was decided. */
export interface LeftOutFile extends SkippedFile {
  /** Absent where it was not looked into. */
  bytes?: number;
  ctimeMs?: number;
}

/** What has to be kept for an edit to cost the edit. */
export interface Packing {
  /** Instructions, tree and the first version of every file. */
  base: Int32Array;
  /** Files of `base`, in its order. */
  basePaths: string[];
  /** Their tokens; empty where an older packing did not keep them. */
  baseSizes: number[];
  /** Later versions and deletions. */
  overlay: { path: string; ids: Int32Array }[];
  /** About how many tokens of `base` are of files that are gone. */
  dead: number;
  /** That `base` was made for: a window is smaller where memory is short. 0: an older packing did not keep it. */
  budget: number;
  /** What the prompt holds, by path. */
  entries: Map<string, Entry>;
  leftOut: LeftOutFile[];
}

/** A version of a file in the prompt. */
export interface FilePlace {
  path: string;
  /** Of its first token in PackedRepository.tokens, and of the one behind its last. */
  start: number;
  end: number;
}

/** Of edits since the files were first packed. */
export function overlayTokens({ overlay }: Pick<Packing, 'overlay'>): number {
  return overlay.reduce((sum, { ids }) => sum + ids.length, 0);
}

/** Of a budget, with a few tokens for the tail. */
export function roomIn(budget: number, packing: Pick<Packing, 'base' | 'overlay'>): number {
  return budget - packing.base.length - overlayTokens(packing) - 8;
}

export function placesOf({ base, basePaths, baseSizes, overlay }: Packing): FilePlace[] {
  if (baseSizes.length !== basePaths.length) return [];
  let at = base.length - baseSizes.reduce((sum, tokens) => sum + tokens, 0);
  const place = (path: string, tokens: number) => ({ path, start: at, end: (at += tokens) });
  return [
    ...basePaths.map((path, i) => place(path, baseSizes[i]!)),
    ...overlay.map(({ path, ids }) => place(path, ids.length)),
  ];
}

/**
 * How many files are other ones in a later packing, came, or went. One that is left out for want of room in one of both did
 * not change by that.
 */
export function changedBetween(before: Packing, now: Packing): number {
  const withoutRoom = ({ leftOut }: Packing) =>
    new Map(leftOut.filter(({ reason }) => reason === 'over-budget').map((file) => [file.path, file]));
  const [leftBefore, leftNow] = [withoutRoom(before), withoutRoom(now)];
  const changed = (path: string) => {
    const [was, is] = [before.entries.get(path), now.entries.get(path)];
    if (was && is) return was.hash !== is.hash;
    const [former, present] = [was ?? leftBefore.get(path), is ?? leftNow.get(path)];
    return former?.ctimeMs !== present?.ctimeMs || former?.bytes !== present?.bytes;
  };
  return [...new Set([...before.entries.keys(), ...now.entries.keys()])].filter(changed).length;
}

/** Whether edits, and what they made useless, are at most so many tenths of the rest; a few tokens always are. */
export function isSmall(packing: Packing, tenths: number): boolean {
  return overlayTokens(packing) + packing.dead <= Math.max((packing.base.length * tenths) / 10, 256);
}

/** Of an earlier process, whose rules and settings may have been others: what was left out for what is in it is looked into again. */
export function lookingAgain(packing: Packing): Packing {
  const leftOut = packing.leftOut.map((file) =>
    file.reason === 'over-budget' ? file : { ...file, bytes: undefined, ctimeMs: undefined },
  );
  return { ...packing, leftOut };
}
