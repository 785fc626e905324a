/** What a folder holds, and of which kind it is. */
import { promises as fs, type Dirent, type Stats } from 'node:fs';
import path from 'node:path';
import { composed } from '../platform/fileNames';

export interface Listed {
  name: string;
  kind: Kind;
}
type Kind = Pick<Dirent | Stats, 'isFile' | 'isDirectory' | 'isSymbolicLink'>;

/** Sorted by name. Throws Node's errors. */
export async function listFolder(folder: string): Promise<Listed[]> {
  const listed: Listed[] = [];
  for (const entry of await fs.readdir(folder, { withFileTypes: true })) {
    const kind = entry.isSymbolicLink() ? await kindOf(entry, folder) : entry;
    listed.push({ name: composed(entry.name), kind });
  }
  return listed.sort((a, b) => (a.name < b.name ? -1 : 1));
}

/** A list on Windows has all for links that a driver stands behind, as the files of a folder that OneDrive keeps: each is looked at. */
export async function kindOf(entry: Kind & { name: string }, folder: string): Promise<Kind> {
  return fs.lstat(path.join(folder, entry.name)).catch(() => entry);
}
