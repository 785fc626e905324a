import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';

export const root = resolve(import.meta.dirname, '../..');

/** Paths of the files under version control, `/` separated. */
export function trackedFiles(): string[] {
  const list = execFileSync('git', ['ls-files', '-z'], { cwd: root, encoding: 'utf8' });
  return list.split('\0').filter((path) => path !== '');
}

export function read(path: string): string {
  return readFileSync(join(root, path), 'utf8');
}

export interface Manifest {
  scripts: Record<string, string>;
  contributes: { configuration?: { properties: Record<string, unknown> } };
}

export function manifest(): Manifest {
  return JSON.parse(read('package.json')) as Manifest;
}
