/**
 * What Windows, macOS and Linux take for the same name of a file. In the prompt, in citations and in settings paths have `/`;
 * what is opened keeps the system's own.
 */
import { realpathSync } from 'node:fs';
import path from 'node:path';

/** `Src/App.ts` and `src/app.ts` are one file on Windows and on macOS, as their disks are formatted unless someone asks otherwise. */
export function ignoresCase(): boolean {
  return process.platform === 'win32' || process.platform === 'darwin';
}

/** macOS may hand a letter and its accent out as two characters, where everyone types one, and opens the file by either. */
export function composed(name: string): string {
  return process.platform === 'darwin' ? name.normalize('NFC') : name;
}

/** With `/`: elsewhere than on Windows a backslash is a character of a name. */
export function withSlashes(file: string): string {
  return process.platform === 'win32' ? file.replaceAll('\\', '/') : file;
}

/** The same for all spellings of one path; to compare by, not to open. */
export function nameKey(file: string): string {
  const plain = composed(withSlashes(file));
  return ignoresCase() ? plain.toLowerCase() : plain;
}

/** The way from a folder to what lies in it, '' to itself; undefined where that lies elsewhere. Of real paths, or of their keys. */
export function wayDown(folder: string, inner: string): string | undefined {
  const system = process.platform === 'win32' ? path.win32 : path.posix;
  const way = withSlashes(system.relative(folder, inner));
  // To another disk there is none.
  return way === '..' || way.startsWith('../') || system.isAbsolute(way) ? undefined : way;
}

/** A folder as the disk spells it, however it was typed: its name stands in the prompt, and what was read is found by it. */
export function asOnDisk(folder: string): string {
  if (!ignoresCase()) return folder;
  try {
    const real = composed(realpathSync.native(folder));
    // Where a link leads is not asked.
    return nameKey(real) === nameKey(folder) ? real : folder;
  } catch {
    return folder;
  }
}

/** People on Windows write a glob as they write a path. What stays escaped is what a name may have there and a glob takes otherwise. */
export function globWithSlashes(glob: string): string {
  return process.platform === 'win32' ? glob.replace(/\\+(?![[\]!#\s])/g, '/') : glob;
}
