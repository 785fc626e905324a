/**
 * Real repositories to ask about: published Python packages that the built-in model never saw in training.
 * `tsx test/eval/getSources.ts flask` prints the folder, which is downloaded by pip the first time.
 */
import { execFileSync } from 'node:child_process';
import { existsSync, mkdtempSync, readdirSync, renameSync, rmSync, utimesSync } from 'node:fs';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { cacheFolder } from './cacheFolder';

/** Pinned, so that figures can be repeated. */
const packages: Record<string, string> = {
  flask: '3.1.1',
  pytest: '8.4.1',
  django: '5.2.19',
  sphinx: '9.0.4',
  sympy: '1.14.0',
  astropy: '8.0.2',
  pylint: '4.1.4',
  xarray: '2026.9.0',
  sqlfluff: '4.5.0',
  'scikit-learn': '1.9.1',
};

/** What every file's age is set to. */
const published = new Date('2025-01-01T00:00:00Z');

export const knownPackages = Object.keys(packages);

/** The folder of a known package, or `nameOrFolder` itself where it is a folder. */
export function getSources(nameOrFolder: string): string {
  if (existsSync(nameOrFolder)) return nameOrFolder;
  const version = packages[nameOrFolder];
  if (!version) {
    throw new Error(
      `There is no folder '${nameOrFolder}'. Give a folder, or one of: ${knownPackages.join(', ')}.`,
    );
  }
  const sources = cacheFolder('sources', version);
  const folder = join(sources, nameOrFolder);
  if (existsSync(folder)) return folder;

  const download = mkdtempSync(join(sources, 'get-'));
  try {
    const python = (...args: string[]) =>
      execFileSync('python3', args, { cwd: download, stdio: ['ignore', 'ignore', 'inherit'] });
    const wheelOnly = ['--no-deps', '--only-binary', ':all:'];
    python('-m', 'pip', 'download', '--quiet', ...wheelOnly, '--dest', '.', `${nameOrFolder}==${version}`);
    const wheel = readdirSync(download).find((name) => name.endsWith('.whl'));
    if (!wheel) throw new Error(`pip brought no wheel of ${nameOrFolder} ${version}.`);
    python('-m', 'zipfile', '-e', wheel, nameOrFolder);
    for (const name of readdirSync(join(download, nameOrFolder)))
      if (name.endsWith('.dist-info')) rmSync(join(download, nameOrFolder, name), { recursive: true });
    // One age for all: what unpacking left would order the files in the prompt by chance.
    for (const name of readdirSync(join(download, nameOrFolder), { recursive: true, encoding: 'utf8' }))
      utimesSync(join(download, nameOrFolder, name), published, published);
    renameSync(join(download, nameOrFolder), folder);
  } finally {
    rmSync(download, { recursive: true, force: true });
  }
  return folder;
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href)
  console.log(getSources(process.argv[2] ?? 'flask'));
