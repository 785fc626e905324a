/** What a figure needs beside it to mean anything. */
import { execFileSync } from 'node:child_process';
import { cpus, loadavg } from 'node:os';
import { projectRoot } from '../eval/serverClient';

export function machine(): string {
  const revision = execFileSync('git', ['describe', '--always', '--dirty'], {
    cwd: projectRoot,
    encoding: 'utf8',
  });
  const load = loadavg()[0]!.toFixed(2);
  const date = new Date().toISOString().slice(0, 10);
  return `${date}, ${cpus()[0]?.model ?? 'unknown CPU'} × ${cpus().length}, load ${load} before, revision ${revision.trim()}`;
}

export function median(values: number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2;
}
