/** The tree is the map of the project: what stands at the top, how large files get, what the papers say. */
import { existsSync, lstatSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { manifest, read, root, trackedFiles } from './project';

const folders = ['.ci', 'extension', 'kernels', 'media', 'native', 'server', 'test'];
const papers = ['CHANGELOG.md', 'LICENSE', 'README.md'];
/** Files that a tool looks for at the top and nowhere else. */
const configuration = [
  '.clang-format',
  '.dependency-cruiser.cjs',
  '.gitattributes',
  '.gitignore',
  '.prettierignore',
  '.prettierrc.json',
  '.vscodeignore',
  'esbuild.mjs',
  'eslint.config.mjs',
  'package-lock.json',
  'package.json',
  'tsconfig.json',
  'vitest.config.mts',
];

// A file that is deleted but not yet committed is still listed by git.
const files = trackedFiles().filter((path) => existsSync(join(root, path)));

describe('layout', () => {
  it('has only known entries at the top level', () => {
    const top = new Set(files.map((path) => path.split('/')[0]!));
    expect([...top].filter((name) => ![...folders, ...papers, ...configuration].includes(name))).toEqual([]);
  });

  it('has the papers', () => {
    for (const paper of papers) expect(read(paper).length, paper).toBeGreaterThan(200);
  });

  it('keeps large and binary files out, but for the built-in model, pictures and the tiny models of tests', () => {
    const allowed = (path: string) => path.startsWith('media/model/') || path.endsWith('.png');
    const limit = (path: string) => (path.startsWith('test/fixtures/native/') ? 900_000 : 400_000);
    const large = files.filter(
      (path) =>
        !allowed(path) && path !== 'package-lock.json' && lstatSync(join(root, path)).size > limit(path),
    );
    expect(large).toEqual([]);
  });

  it('holds no file past 600 lines, and few past 400', () => {
    const sources = files.filter((path) => /\.(ts|mjs|cjs|css|cpp|h|cu|cuh)$/.test(path));
    const lines = new Map(
      sources.map((path) => [path, readFileSync(join(root, path), 'utf8').split('\n').length]),
    );
    expect([...lines].filter(([, count]) => count > 600)).toEqual([]);

    const total = (folder: string) =>
      [...lines].filter(([path]) => path.startsWith(folder)).reduce((sum, [, count]) => sum + count, 0);
    const summary = ['extension/', 'server/', 'native/', 'kernels/', 'test/'].map((f) => `${f} ${total(f)}`);
    const long = [...lines].filter(([, count]) => count > 400).map(([path, count]) => `${path} ${count}`);
    console.log(`lines: ${summary.join(', ')}; past 400: ${long.join(', ') || 'none'}`);
  });
});

describe('README', () => {
  const readme = read('README.md');

  it('names only commands that package.json has', () => {
    const { scripts } = manifest();
    const named = [...readme.matchAll(/npm run ([\w:-]+)/g)].map((match) => match[1]!);
    expect(named).not.toEqual([]);
    expect(named.filter((name) => !(name in scripts))).toEqual([]);
    expect(readme).toContain('npm test');
    expect(scripts).toHaveProperty('test');
  });

  it('names every suite of the end-to-end tests', () => {
    const [, named = ''] = /runs one of the suites ([^,]+(?:,[^,]+)*?), and/.exec(readme) ?? [];
    const suites = files.flatMap((path) => /^test\/e2e\/(\w+)\.e2e\.mjs$/.exec(path)?.[1] ?? []);
    expect([...named.matchAll(/`(\w+)`/g)].map((match) => match[1]).sort()).toEqual(
      ['host', ...suites].sort(),
    );
  });

  it('names only files that exist', () => {
    const links = [...readme.matchAll(/\]\(([^)#:]+)\)/g)].map((match) => match[1]!);
    expect(links.filter((path) => !existsSync(join(root, path)))).toEqual([]);
  });

  it('describes every setting, and there are at most 20', () => {
    const settings = Object.keys(manifest().contributes.configuration?.properties ?? {});
    expect(settings.length).toBeLessThanOrEqual(20);
    for (const setting of settings) expect(setting).toMatch(/^longview\./);
    expect(settings.filter((setting) => !readme.includes(`\`${setting}\``))).toEqual([]);
  });
});
