/** The folders of saved states: where they lie, how large they are, which of them go. */
import { randomBytes } from 'node:crypto';
import { promises as fs } from 'node:fs';
import path from 'node:path';
import { LongviewError } from '../errors';
import { here } from '../here';
import { plainFile } from '../plainFile';
import { cacheFolder } from '../platform/homeFolders';
import { unlessInUse } from '../platform/patiently';
import type { SavedWorkspace } from '../protocol';

export const defaultMaxGiB = 40;

/** The terminal's; the editor has its own. Undefined: LONGVIEW_CACHE_DIR is set and empty, and nothing is kept on disk. */
export function defaultCacheFolder(): string | undefined {
  const given = process.env.LONGVIEW_CACHE_DIR;
  if (given !== undefined) return given === '' ? undefined : path.resolve(here, given);
  return cacheFolder();
}

const labelName = 'label.json';
const folderName = /^[0-9a-f]{24}$/;
const trashName = /^\.trash-/;

interface Label {
  folders: string[];
  model: string;
}

/** Says whose state a folder holds. Its time of writing is when the state was last used. */
export async function writeLabel(folder: string, label: Label): Promise<void> {
  await fs.writeFile(path.join(folder, labelName), `${JSON.stringify(label)}\n`, { mode: 0o600 });
}

async function readLabel(folder: string): Promise<Label> {
  try {
    const text = await fs.readFile(path.join(folder, labelName), { encoding: 'utf8', ...plainFile });
    const { folders, model } = JSON.parse(text) as Partial<Label>;
    return {
      folders: Array.isArray(folders) ? folders.map(String) : [],
      model: typeof model === 'string' ? model : '',
    };
  } catch {
    return { folders: [], model: '' };
  }
}

async function describe(folder: string): Promise<SavedWorkspace> {
  let bytes = 0;
  // A first save is labelled when it is complete.
  let usedMs = (await fs.lstat(folder).catch(() => undefined))?.mtimeMs ?? 0;
  for (const name of await fs.readdir(folder).catch(() => [])) {
    const status = await fs.lstat(path.join(folder, name)).catch(() => undefined);
    // What is taken on the disk, not what the file claims.
    bytes += status ? Math.min(status.size, status.blocks * 512) : 0;
    if (name === labelName && status) usedMs = status.mtimeMs;
  }
  return { folder, bytes, usedMs, ...(await readLabel(folder)) };
}

/** Every saved state, the one used last first. */
export async function savedWorkspaces(root: string): Promise<SavedWorkspace[]> {
  const names = await fs.readdir(root).catch(() => []);
  const all = await Promise.all(
    names.filter((name) => folderName.test(name)).map((name) => describe(path.join(root, name))),
  );
  return all.sort((a, b) => b.usedMs - a.usedMs);
}

/**
 * Gone at once for everyone, then deleted: who writes in it at this time finds no place for its manifest. Another process may
 * have been faster. False where it stays, because Windows lets nobody take away what someone has open.
 */
async function remove(root: string, folder: string): Promise<boolean> {
  const trash = path.join(root, `.trash-${randomBytes(6).toString('hex')}`);
  try {
    if (!(await unlessInUse(() => fs.rename(folder, trash)))) return false;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return true;
    throw error;
  }
  // What stays of it goes with the next ones.
  await deleted(trash);
  return true;
}

function deleted(folder: string): Promise<boolean> {
  return unlessInUse(() => fs.rm(folder, { recursive: true, force: true }));
}

/** Deletes what a process left that ended while it deleted; returns the bytes that were freed. */
async function removeTrash(root: string): Promise<number> {
  let freed = 0;
  for (const name of await fs.readdir(root).catch(() => [])) {
    if (!trashName.test(name)) continue;
    const { folder, bytes } = await describe(path.join(root, name));
    if (await deleted(folder)) freed += bytes;
  }
  return freed;
}

/** Deletes saved states, those used least recently first, until all together take at most `maxBytes`; `keep` stays. */
export async function evict(root: string, maxBytes: number, keep: string): Promise<void> {
  await removeTrash(root);
  const all = await savedWorkspaces(root);
  let total = all.reduce((sum, { bytes }) => sum + bytes, 0);
  for (const { folder, bytes } of all.reverse()) {
    if (total <= maxBytes) return;
    if (folder !== keep && (await remove(root, folder))) total -= bytes;
  }
}

/** Deletes every saved state; returns the bytes that were freed. Throws LongviewError `cannot_write` where one is being written. */
export async function clearCache(root: string): Promise<number> {
  let freed = await removeTrash(root);
  const open: string[] = [];
  for (const { folder, bytes, folders } of await savedWorkspaces(root))
    if (await remove(root, folder)) freed += bytes;
    else open.push(folders.join(', ') || folder);
  if (open.length > 0)
    throw new LongviewError(
      'cannot_write',
      `What was read of ${open.join(' and ')} is in use at this time and stays; all else is deleted. Try again in a minute.`,
    );
  return freed;
}
