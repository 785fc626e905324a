/** Starts a runner as a plain Node process: bundled first, so that no loader of TypeScript weighs on its memory. */
import { fork } from 'node:child_process';
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { build } from 'esbuild';
import { projectRoot } from '../eval/serverClient';
import type { Job, JobResult } from './job';

export type Runner = 'llamaCppRunner' | 'longviewRunner';

/** Bundles a runner; the result is what runJob() takes. */
export async function bundleRunner(runner: Runner): Promise<string> {
  const folder = join(projectRoot, 'build', 'bench');
  mkdirSync(folder, { recursive: true });
  const outfile = join(folder, `${runner}.cjs`);
  await build({
    entryPoints: [join(import.meta.dirname, `${runner}.ts`)],
    outfile,
    bundle: true,
    platform: 'node',
    format: 'cjs',
    logLevel: 'error',
  });
  return outfile;
}

export function runJob(bundle: string, job: Job): Promise<JobResult> {
  const env = { ...process.env, LONGVIEW_ADDON: join(projectRoot, 'dist', 'longview.node') };
  const child = fork(bundle, { stdio: ['ignore', 2, 2, 'ipc'], execArgv: [], env });
  return new Promise((resolve, reject) => {
    let result: JobResult | undefined;
    child.once('message', (message: JobResult) => (result = message));
    child.once('error', reject);
    child.once('exit', (code) =>
      result ? resolve(result) : reject(new Error(`${bundle} ended with code ${code} and no result.`)),
    );
    child.send(job);
  });
}
