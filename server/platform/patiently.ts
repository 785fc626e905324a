/**
 * Windows refuses to rename or delete a file that someone has open, as a virus scanner has each new one for a moment. Elsewhere
 * nobody is in the way of that, and an error is what it says.
 */
import { setTimeout as pause } from 'node:timers/promises';

const refusals = new Set(['EACCES', 'EBUSY', 'ENOTEMPTY', 'EPERM']);
/** In all about two seconds. */
const pausesMs = [10, 30, 100, 300, 500, 1000];

function isInUse(error: unknown): boolean {
  return process.platform === 'win32' && refusals.has((error as NodeJS.ErrnoException).code ?? '');
}

/** Renames or deletes, again for as long as scanners take. */
export async function patiently(work: () => Promise<void>): Promise<void> {
  for (const ms of pausesMs)
    try {
      return await work();
    } catch (error) {
      if (!isInUse(error)) throw error;
      await pause(ms);
    }
  return work();
}

/** The same; false where someone has it open all the while, and it stays. */
export async function unlessInUse(work: () => Promise<void>): Promise<boolean> {
  try {
    await patiently(work);
    return true;
  } catch (error) {
    if (isInUse(error)) return false;
    throw error;
  }
}
