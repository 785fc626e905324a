/** Where a program lies that the system has, found by ourselves: what a folder that is asked about brings along is never it. */
import { execFile } from 'node:child_process';
import { constants, promises as fs } from 'node:fs';
import path from 'node:path';

/**
 * The program's file, by the folders of PATH that are named from the root on: Windows looks into the present folder first, and
 * everyone does where PATH has `.`. Undefined where there is none.
 */
export async function programOnPath(name: string): Promise<string | undefined> {
  const windows = process.platform === 'win32';
  const folders = (process.env.PATH ?? '')
    .split(windows ? ';' : ':')
    .map((folder) => folder.replace(/^"(.*)"$/, '$1'));
  for (const folder of folders) {
    if (!path.isAbsolute(folder)) continue;
    const file = path.join(folder, windows ? `${name}.exe` : name);
    if (await canRun(file)) return file;
  }
  return undefined;
}

async function canRun(file: string): Promise<boolean> {
  try {
    await fs.access(file, constants.X_OK);
    return (await fs.stat(file)).isFile();
  } catch {
    return false;
  }
}

/** Undefined on a Mac without Apple's tools for developers: the git that is there then does nothing but ask, in a window, for them. */
export async function gitProgram(): Promise<string | undefined> {
  const git = await programOnPath('git');
  return git !== '/usr/bin/git' || process.platform !== 'darwin' || (await hasDeveloperTools())
    ? git
    : undefined;
}

function hasDeveloperTools(): Promise<boolean> {
  return new Promise((resolve) => {
    execFile('/usr/bin/xcode-select', ['-p'], (error) => resolve(error === null));
  });
}
