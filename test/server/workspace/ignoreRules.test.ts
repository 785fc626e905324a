/** Which files the rules of a repository and of the settings leave out, and what they may cost. */
import { execFileSync } from 'node:child_process';
import { symlinkSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import { scanFolder } from '../../../server/workspace/scan';
import { onPlatform } from '../platform/onPlatform';
import { repository } from './repository';

describe('ignore rules', () => {
  it('takes the files that git would, with nested rules and negation', async () => {
    const folder = repository([
      ['.gitignore', '*.log\n/generated/\n!keep.log\n'],
      ['a.ts', 'a'],
      ['debug.log', 'x'],
      ['keep.log', 'x'],
      ['generated/g.ts', 'x'],
      ['sub/.gitignore', '*.ts\n!b.ts\n/c.py\n'],
      ['sub/a.ts', 'x'],
      ['sub/b.ts', 'x'],
      ['sub/c.py', 'x'],
      ['sub/deep/c.py', 'x'],
      ['sub/deep/generated/c.js', 'x'],
    ]);
    execFileSync('git', ['init', '-q'], { cwd: folder });
    const listed = execFileSync('git', ['ls-files', '--others', '--exclude-standard'], {
      cwd: folder,
      encoding: 'utf8',
    });
    const { files } = await scanFolder(folder);
    expect(files.map((file) => file.path).sort()).toEqual(listed.trim().split('\n').sort());
  });

  it('goes by ignore files without git too, and by .ignore', async () => {
    const folder = repository([
      ['.gitignore', '*.tmp\n'],
      ['.ignore', 'notes/\n'],
      ['a.ts', 'a'],
      ['b.tmp', 'x'],
      ['notes/n.md', 'x'],
      ['sub/.ignore', '!c.tmp\n'],
      ['sub/c.tmp', 'x'],
    ]);
    const { files, skipped } = await scanFolder(folder);
    const visible = files.map((file) => file.path).filter((name) => !/ignore$/.test(name));
    expect(visible).toEqual(['a.ts', 'sub/c.tmp']);
    expect(skipped).toEqual([
      { path: 'b.tmp', reason: 'ignored' },
      { path: 'notes/', reason: 'ignored' },
    ]);
  });

  it('takes any case where git is told to, as it is on Windows and on macOS', async () => {
    const folder = repository([
      ['.gitignore', 'Debug/\n*.LOG\n!Keep.log\n'],
      ['debug/a.ts', 'x'],
      ['b.log', 'x'],
      ['keep.LOG', 'x'],
      ['c.ts', 'x'],
    ]);
    execFileSync('git', ['init', '-q'], { cwd: folder });
    const ignoringCase = ['-c', 'core.ignoreCase=true', 'ls-files', '--others', '--exclude-standard'];
    const listed = execFileSync('git', ignoringCase, { cwd: folder, encoding: 'utf8' });
    for (const platform of ['win32', 'darwin'] as const) {
      const { files } = await onPlatform(platform, () => scanFolder(folder));
      expect(files.map((file) => file.path).sort()).toEqual(listed.trim().split('\n').sort());
    }
  });

  it('tells upper case from lower on Linux, as git does', async () => {
    const folder = repository([
      ['.ignore', 'logs\n'],
      ['logs/a.txt', 'x'],
      ['src/Logs/a.ts', 'x'],
    ]);
    const { files } = await onPlatform('linux', () => scanFolder(folder, { exclude: ['SRC/'] }));
    expect(files.map((file) => file.path)).toEqual(['.ignore', 'src/Logs/a.ts']);
  });

  it('goes by the rules above a folder of a repository, but for those that would hide the folder', async () => {
    const folder = repository([
      ['.gitignore', '*.log\n/src/core/gen/\nout/\n'],
      ['src/.gitignore', '*.tmp\n/core/*.txt\n'],
      ['src/.ignore', '/core/*.skip\n!/core/b.txt\n'],
      ['src/core/a.ts', 'x'],
      ['src/core/a.skip', 'x'],
      ['src/core/b.txt', 'x'],
      ['src/core/a.log', 'x'],
      ['src/core/a.tmp', 'x'],
      ['src/core/a.txt', 'x'],
      ['src/core/a.local', 'x'],
      ['src/core/gen/g.ts', 'x'],
      ['src/core/.ignore', '!a.tmp\n'],
      ['out/a.js', 'x'],
    ]);
    execFileSync('git', ['init', '-q'], { cwd: folder });
    writeFileSync(path.join(folder, '.git/info/exclude'), '*.local\n');
    const names = async (below: string) =>
      (await scanFolder(path.join(folder, below))).files.map((file) => file.path);
    const core = ['.ignore', 'a.tmp', 'a.ts', 'b.txt'];
    expect(await names('src/core')).toEqual(core);
    expect(await names('src')).toEqual(['.gitignore', '.ignore', ...core.map((name) => `core/${name}`)]);
    expect(await names('out')).toEqual(['a.js']);
  });

  it('does not go by rules above a folder outside of a repository', async () => {
    const folder = repository([
      ['.gitignore', '*.ts\n'],
      ['src/a.ts', 'x'],
    ]);
    expect((await scanFolder(path.join(folder, 'src'))).files).toHaveLength(1);
  });

  it('finds the rules above a folder that is a link', async () => {
    const folder = repository([
      ['.gitignore', '*.log\n'],
      ['src/a.ts', 'x'],
      ['src/a.log', 'x'],
    ]);
    execFileSync('git', ['init', '-q'], { cwd: folder });
    const link = path.join(repository([]), 'link');
    symlinkSync(path.join(folder, 'src'), link);
    expect((await scanFolder(link)).files.map((file) => file.path)).toEqual(['a.ts']);
  });

  it('finds the rules of a worktree and of a submodule, and takes no .git of any kind', async () => {
    const folder = repository([['a.ts', 'x']]);
    const git = (...args: string[]) =>
      execFileSync('git', ['-c', 'user.name=x', '-c', 'user.email=x@x', ...args], {
        cwd: folder,
        stdio: 'ignore',
      });
    git('init');
    git('add', '.');
    git('commit', '-m', 'x');
    writeFileSync(path.join(folder, '.git/info/exclude'), '*.local\n');
    const worktree = path.join(repository([]), 'worktree');
    git('worktree', 'add', worktree);
    git('-c', 'protocol.file.allow=always', 'submodule', 'add', folder, 'sub');
    writeFileSync(path.join(folder, '.git/modules/sub/info/exclude'), '*.local\n');
    symlinkSync('a.ts', path.join(folder, 'link.ts'));
    for (const root of [worktree, path.join(folder, 'sub')]) {
      writeFileSync(path.join(root, 'b.local'), 'x');
      const { files, skipped } = await scanFolder(root, { include: ['.git'] });
      expect(files.map((file) => file.path)).toEqual(['a.ts']);
      expect(skipped.map((file) => file.path)).toEqual(['.git', 'b.local']);
    }
    const { files, skipped } = await scanFolder(folder, { include: ['.git/', '.git/**'] });
    expect(files.map((file) => file.path)).toEqual(['.gitmodules', 'a.ts', 'sub/a.ts']);
    expect(skipped).toContainEqual({ path: '.git/', reason: 'ignored' });
  });

  it.each([
    ['nothing', ''],
    ['a folder that is not there', 'gitdir: /nowhere\n'],
    ['a name that no file has', 'gitdir: a\0b\n'],
    ['a pipe', 'gitdir: .\n'],
    ['a large file', `gitdir: ${'x'.repeat(3_000_000)}`],
  ])('is not held up by a .git that leads to %s', async (_, text) => {
    const folder = repository([
      ['.git', text],
      ['src/a.ts', 'x'],
      ['info/x', 'x'],
    ]);
    for (const pipe of ['commondir', 'info/exclude']) execFileSync('mkfifo', [path.join(folder, pipe)]);
    const { files } = await scanFolder(path.join(folder, 'src'));
    expect(files.map((file) => file.path)).toEqual(['a.ts']);
  });

  it('goes by the beginning of a rule whose cost would grow with a high power of the depth, and says so', async () => {
    const deep = 'a/'.repeat(100);
    const detail = 'by the beginning of a pattern with more than 3 `**`';
    const scan = async (rules: string, options = {}) => {
      const files = ['.gitignore', `${deep}c.ts`, 'a*c.ts', 'b/c.ts', 'abc'];
      const folder = repository(files.map((name) => [name, name === '.gitignore' ? rules : 'x']));
      const { files: taken, skipped } = await scanFolder(folder, options);
      for (const file of skipped) expect(file.detail).toBe(/^#no/.test(rules) ? undefined : detail);
      return files.filter((name) => taken.every((file) => file.path !== name));
    };
    // As many steps as there are ways to choose twelve of a hundred folders.
    expect(await scan(`${'**/a/'.repeat(12)}b\n`)).toEqual([`${deep}c.ts`]);
    expect(await scan(`/b/${'**/a/'.repeat(4)}x\r\n`)).toEqual([]);
    expect(await scan(`/b/**/**/${'**/x/'.repeat(4)}x\n`)).toEqual([]);
    expect(await scan('/a/**/a/**/a/**/x/**/x\n')).toEqual([`${deep}c.ts`]);
    expect(await scan(`#no\n*.ts\n!${'**/a/'.repeat(3)}**/c.ts\n`)).toEqual([
      `${deep}c.ts`,
      'a*c.ts',
      'b/c.ts',
    ]);
    // Beside other characters of a name, two stars are one: nothing is cut off.
    expect(await scan('#no\na**b**c**d**e\n/******** abc ********/\n')).toEqual([]);
    expect(await scan('#no\na**\\**c********.ts********\n')).toEqual(['a*c.ts']);
    expect(await scan('#no\n/a****b********c********\n')).toEqual(['abc']);
    expect(await scan('#no\n/a*\n!/a**b**c**********\n')).toEqual([`${deep}c.ts`, 'a*c.ts']);
    expect(await scan('#no\n/a\\*c********\n')).toEqual(['a*c.ts']);
    expect(await scan(`#no\nx/${'**/a/'.repeat(4)}b\n`)).toEqual([]);
  });

  it('keeps to a rule that costs no more than it may', async () => {
    const deep = 'a/'.repeat(100);
    const scan = async (rules: string) => {
      const { files } = await scanFolder(
        repository([
          ['.gitignore', rules],
          [`${deep}c.ts`, 'x'],
        ]),
      );
      return files.map((file) => file.path);
    };
    const both = ['.gitignore', `${deep}c.ts`];
    expect(await scan('**/a/**/a/**/c.ts\r\n')).toEqual(['.gitignore']);
    expect(await scan(`${'**/'.repeat(30)}c.ts\n`)).toEqual(['.gitignore']);
    expect(await scan('/a**/**/c.ts\n')).toEqual(['.gitignore']);
    expect(await scan(`${'# long\n'.repeat(200_000)}*.ts`)).toEqual(both.slice(1));
    // Cut off behind its first four characters, it would be another rule.
    const before = '#'.repeat(2 ** 20 - 5);
    expect(await scan(`${before}\n*.tsx\n${'#'.repeat(5000)}`)).toEqual(both.slice(1));
  });

  it('goes by shorter beginnings where all rules of a repository together would cost too much', async () => {
    const many = (count: number) =>
      Array.from({ length: count }, (_, i) => `/a/**/a/**/a/**/${i}`).join('\n');
    const scan = async (costly: number) => {
      const { files, skipped } = await scanFolder(
        repository([
          ['.gitignore', many(costly)],
          ['b/.gitignore', '/c/**/x/**/d.ts\n/c/**/y.ts\n'],
          ['b/c/x/d.ts', 'x'],
          ['b/c/y.ts', 'x'],
          ['b/c/z.ts', 'x'],
        ]),
      );
      const taken = files.map((file) => file.path).filter((file) => file.endsWith('.ts'));
      return { taken, skipped: skipped.map(({ path, detail }) => [path, detail]) };
    };
    expect(await scan(50)).toEqual({
      taken: ['b/c/z.ts'],
      skipped: [
        ['b/c/x/d.ts', undefined],
        ['b/c/y.ts', undefined],
      ],
    });
    // A few bytes for each, and each would be tried in half a million ways for each folder on the way down.
    const beyond = 'by the beginning of a pattern with more than 1 `**`';
    expect(await scan(20_000)).toEqual({
      taken: [],
      skipped: [
        ['b/c/x/', beyond],
        ['b/c/y.ts', undefined],
        ['b/c/z.ts', beyond],
      ],
    });
    await expect(scanFolder(repository([['a.ts', 'x']]), { exclude: many(200).split('\n') })).rejects.toThrow(
      /longview\.files has more than 1/,
    );
  });

  it('goes no deeper than where such rules cost too much', async () => {
    const folder = repository([
      ['.gitignore', '**/a/**/a/**/a/b\n'],
      [`${'a/'.repeat(800)}c.ts`, 'x'],
      [`${'b/'.repeat(120)}c.ts`, 'x'],
    ]);
    const { files, skipped } = await scanFolder(folder);
    expect(files.map((file) => file.path)).toEqual(['.gitignore', `${'b/'.repeat(120)}c.ts`]);
    expect(skipped).toEqual([
      { path: 'a/'.repeat(129), reason: 'unreadable', detail: 'more than 128 folders deep' },
    ]);
  });

  it('says which pattern of the settings would cost as much', async () => {
    const folder = repository([[`${'a/'.repeat(60)}c.ts`, 'x']]);
    for (const key of ['include', 'exclude']) {
      await expect(scanFolder(folder, { [key]: [`${'**/a/'.repeat(20)}b`] })).rejects.toThrow(
        /\*\*\/a.*in longview\.files has more than 3/,
      );
      expect((await scanFolder(folder, { [key]: [`${'**/'.repeat(20)}b`] })).files).toHaveLength(1);
    }
  });
});
