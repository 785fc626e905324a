import { mkdirSync } from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';

/** Where evals and benches keep what they download: `${XDG_CACHE_HOME:-~/.cache}/longview-eval/<name>`. */
export function cacheFolder(...name: string[]): string {
  const root = process.env.XDG_CACHE_HOME ?? join(homedir(), '.cache');
  const folder = join(root, 'longview-eval', ...name);
  mkdirSync(folder, { recursive: true });
  return folder;
}
