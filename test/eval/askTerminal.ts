/** Asks through the terminal command: one process, one reading of the folder, one JSON line an answer. */
import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import type { EvalAnswer } from './serverClient';
import { projectRoot } from './serverClient';

export async function askTerminal(
  folder: string,
  questions: string[],
  options: { model?: string; threads?: number },
): Promise<EvalAnswer[]> {
  const entry = join(projectRoot, 'dist', 'cli.js');
  if (!existsSync(entry)) throw new Error('dist/cli.js is missing. Run `npm run build` first.');
  const args = ['ask', '--json', '--repo', folder];
  if (options.model) args.push('--model', options.model);
  if (options.threads) args.push('--threads', String(options.threads));
  const child = spawn(process.execPath, [entry, ...args, '--', ...questions], {
    stdio: ['ignore', 'pipe', 'pipe'],
    // Every reading is a first one.
    env: { ...process.env, LONGVIEW_CACHE_DIR: '' },
  });
  let output = '';
  let errors = '';
  child.stdout.setEncoding('utf8').on('data', (text: string) => (output += text));
  child.stderr.setEncoding('utf8').on('data', (text: string) => (errors += text));
  const code = await new Promise((done) => child.once('close', done));
  if (code !== 0) throw new Error(`longview ask ended with code ${String(code)}: ${errors.trim()}`);
  return output
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line) as EvalAnswer);
}
