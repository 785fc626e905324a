import { execFileSync } from 'node:child_process';
import { chmodSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import { changeTime, scanFolder, scanWorkspace } from '../../../server/workspace/scan';
import { onPlatform } from '../platform/onPlatform';
import { repository } from './repository';

describe('scanFolder', () => {
  it('takes and leaves out what the settings say', async () => {
    const folder = repository([
      ['.gitignore', 'generated/\n'],
      ['generated/g.ts', 'x'],
      ['dist/d.js', 'x'],
      ['yarn.lock', 'x'],
      ['docs/a.md', 'x'],
      ['src/a.ts', 'x'],
      ['src/private.ts', 'x'],
      ['.env', 'KEY=1'],
    ]);
    const options = { include: ['generated/', 'dist/', '*.lock', '.env'], exclude: ['docs/', 'private.ts'] };
    const { files, skipped } = await scanFolder(folder, options);
    const taken = files.map((file) => file.path).filter((name) => name !== '.gitignore');
    expect(taken).toEqual(['dist/d.js', 'generated/g.ts', 'src/a.ts', 'yarn.lock']);
    // No setting brings a secret into the prompt.
    expect(skipped).toEqual([
      { path: '.env', reason: 'secret' },
      { path: 'docs/', reason: 'excluded' },
      { path: 'src/private.ts', reason: 'excluded' },
    ]);
  });

  it('takes no settings of the editor, which change when a folder is left out, unless they are included', async () => {
    const folder = repository([
      ['.vscode/launch.json', '{}'],
      ['.vscode/settings.json', '{}'],
      ['app/.vscode/settings.json', '{}'],
      ['app/settings.json', '{}'],
    ]);
    const { files, skipped } = await scanFolder(folder);
    expect(files.map((file) => file.path)).toEqual(['.vscode/launch.json', 'app/settings.json']);
    expect(new Set(skipped.map((file) => file.reason))).toEqual(new Set(['generated']));
    const included = await scanFolder(folder, { include: ['/.vscode/'] });
    expect(included.files.map((file) => file.path)).toContain('.vscode/settings.json');
  });

  it('takes what the settings include inside of a folder that is left out, and that alone', async () => {
    const folder = repository([
      ['.gitignore', 'generated/\n'],
      ['a.ts', 'x'],
      ['vendor/mine/a.ts', 'x'],
      ['vendor/mine/deep/b.ts', 'x'],
      ['vendor/other/c.ts', 'x'],
      ['vendor/d.ts', 'x'],
      ['generated/api/e.ts', 'x'],
      ['generated/f.ts', 'x'],
      ['node_modules/m/index.ts', 'x'],
      ['node_modules/m/README.md', 'x'],
    ]);
    const { files, skipped } = await scanFolder(folder, {
      include: ['vendor/mine/**', '/generated/api/*.ts', '*.md'],
    });
    expect(files.map((file) => file.path)).toEqual([
      '.gitignore',
      'a.ts',
      'generated/api/e.ts',
      'vendor/mine/a.ts',
      'vendor/mine/deep/b.ts',
    ]);
    expect(skipped.map(({ path, reason }) => [path, reason])).toEqual([
      ['generated/', 'ignored'],
      ['node_modules/', 'dependency'],
      ['vendor/', 'dependency'],
    ]);
    const both = [
      { name: 'app', folder },
      { name: 'lib', folder: repository([['vendor/g.ts', 'x']]) },
    ];
    const there = await scanWorkspace(both, { include: ['app/vendor/mine/deep/b.ts'] });
    const vendored = there.files.map((file) => file.path).filter((name) => name.includes('vendor'));
    expect(vendored).toEqual(['app/vendor/mine/deep/b.ts']);
  });

  it('takes folders and files that are called like members of every object', async () => {
    const names = ['__proto__/a.ts', 'constructor/toString', 'hasOwnProperty'];
    const { files, skipped } = await scanFolder(repository(names.map((name) => [name, 'x'])));
    expect(files.map((file) => file.path)).toEqual(names);
    expect(skipped).toEqual([]);
  });

  it('lists a folder that it may not enter', async ({ skip }) => {
    if (process.getuid?.() === 0) skip('root may enter every folder');
    const folder = repository([['shut/a.ts', 'x']]);
    chmodSync(path.join(folder, 'shut'), 0);
    const { skipped } = await scanFolder(folder);
    chmodSync(path.join(folder, 'shut'), 0o700);
    expect(skipped).toEqual([{ path: 'shut/', reason: 'unreadable' }]);
  });

  it('lists what it leaves out, with the reason, and never opens a pipe', async () => {
    const folder = repository([
      ['a.ts', 'a'],
      ['.env', 'KEY=1'],
      ['.env.example', 'KEY='],
      ['id_rsa', 'x'],
      ['yarn.lock', 'x'],
      ['lib.min.js', 'x'],
      ['big.txt', 'x'.repeat(3000)],
      ['node_modules/m/index.js', 'x'],
      ['.vs/slnx.json', '{}'],
      ['Pods/Alamofire/a.swift', 'x'],
      ['ev"il.ts', 'x'],
    ]);
    symlinkSync('..', path.join(folder, 'loop'));
    execFileSync('mkfifo', [path.join(folder, 'pipe')]);
    const { files, skipped } = await scanFolder(folder, { maxFileBytes: 2048 });
    expect(files.map((file) => file.path)).toEqual(['.env.example', 'a.ts']);
    expect(Object.fromEntries(skipped.map((file) => [file.path, file.reason]))).toEqual({
      '.env': 'secret',
      id_rsa: 'secret',
      'yarn.lock': 'lock-file',
      'lib.min.js': 'minified',
      'big.txt': 'too-large',
      'node_modules/': 'dependency',
      '.vs/': 'build-output',
      'Pods/': 'dependency',
      'ev"il.ts': 'unreadable',
      loop: 'link-loop',
      pipe: 'not-a-file',
    });
  });

  it('fails where the folder itself cannot be read', async () => {
    const gone = path.join(repository([['a.ts', 'a']]), 'gone');
    const message = `There is no folder ${gone}: it may have been moved or deleted.`;
    await expect(scanFolder(gone)).rejects.toMatchObject({ code: 'no_workspace', message });
    const file = path.join(path.dirname(gone), 'a.ts');
    await expect(scanFolder(file)).rejects.toMatchObject({ message: `${file} is no folder.` });
    await expect(scanWorkspace([])).rejects.toMatchObject({ code: 'no_workspace' });
  });

  it('goes by the time of the last writing where a disk keeps none of the last change', () => {
    // What Node makes of a time that is not there: the beginning of 1601.
    for (const none of [0, -11_644_473_600_000]) expect(changeTime(none, 1000)).toBe(1000);
    // Who sets the time of writing back changes the file all the same.
    expect(changeTime(2000, 1000)).toBe(2000);
  });

  it('stops when it is told to', async () => {
    await expect(scanFolder(repository([['a', 'a']]), { signal: AbortSignal.abort() })).rejects.toMatchObject(
      { code: 'cancelled' },
    );
  });
});

describe('scanWorkspace', () => {
  it('puts the names of several folders before their paths, made unique', async () => {
    const one = repository([['a.ts', 'a']]);
    const two = repository([['a.ts', 'b']]);
    const { files } = await scanWorkspace([
      { name: 'app', folder: one },
      { name: 'app', folder: two },
    ]);
    expect(files.map((file) => file.path)).toEqual(['app/a.ts', 'app-2/a.ts']);
    const odd = await scanWorkspace([
      { name: 'a"b', folder: one },
      { name: 'a"b', folder: two },
    ]);
    expect(odd.files.map((file) => file.path)).toEqual(['a_b/a.ts', 'a_b-2/a.ts']);
  });

  it('leaves out by the path in the prompt as well as by the path in its folder', async () => {
    const one = repository([
      ['src/a.ts', 'a'],
      ['gen/g.ts', 'a'],
    ]);
    const two = repository([
      ['src/b.ts', 'b'],
      ['gen/g.ts', 'b'],
    ]);
    const roots = [
      { name: 'app', folder: one },
      { name: 'lib', folder: two },
    ];
    const { files, skipped } = await scanWorkspace(roots, { exclude: ['/app/src/', '/gen/'] });
    expect(files.map((file) => file.path)).toEqual(['lib/src/b.ts']);
    expect(skipped.map((file) => file.path)).toEqual(['app/gen/', 'app/src/', 'lib/gen/']);
  });

  it('takes a pattern that begins with the name of a folder for that folder alone', async () => {
    const inner = repository([
      ['web/docs/a.md', 'a'],
      ['src/web/docs/b.md', 'a'],
      ['src/x.ts', 'a'],
    ]);
    const docs = () =>
      repository([
        ['docs/c.md', 'a'],
        ['d.ts', 'a'],
      ]);
    const roots = [
      { name: 'app', folder: inner },
      { name: 'web', folder: docs() },
      { name: '[x]', folder: docs() },
    ];
    const left = async (exclude: string[]) =>
      (await scanWorkspace(roots, { exclude })).skipped.map((file) => file.path);
    for (const pattern of ['/web/docs/', 'web/docs/']) expect(await left([pattern])).toEqual(['web/docs/']);
    expect(await left(['/\\[x\\]/docs/'])).toEqual(['[x]/docs/']);
    // Without a place, wherever it is.
    expect(await left(['web/'])).toEqual(['app/src/web/', 'app/web/', 'web/d.ts', 'web/docs/']);
  });

  it('reads the folders that are there, and lists those that are not', async () => {
    const here = repository([['a.ts', 'a']]);
    const roots = [
      { name: 'gone', folder: path.join(here, 'gone') },
      { name: 'here', folder: here },
    ];
    const { files, skipped } = await scanWorkspace(roots);
    expect(files.map((file) => file.path)).toEqual(['here/a.ts']);
    expect(skipped).toMatchObject([{ path: 'gone/', reason: 'unreadable' }]);
    await expect(scanWorkspace([roots[0]!, roots[0]!])).rejects.toMatchObject({ code: 'no_workspace' });
  });

  it('reads once what lies in two of the folders, as the inner one', async () => {
    const outer = repository([
      ['a.ts', 'a'],
      ['..lib/b.ts', 'b'],
      ['lib/c.ts', 'c'],
      ['lib/deep/d.ts', 'd'],
      ['lib-2/e.ts', 'e'],
    ]);
    const link = path.join(repository([]), 'link');
    symlinkSync(path.join(outer, 'lib'), link);
    const root = (name: string, folder: string) => ({ name, folder });
    const [app, lib, linked] = [root('app', outer), root('lib', path.join(outer, 'lib')), root('lib', link)];
    for (const roots of [
      [app, lib],
      [linked, app],
    ]) {
      const { files, skipped } = await scanWorkspace(roots);
      expect(files.map((file) => file.path).sort()).toEqual([
        'app/..lib/b.ts',
        'app/a.ts',
        'app/lib-2/e.ts',
        'lib/c.ts',
        'lib/deep/d.ts',
      ]);
      expect(skipped).toEqual([{ path: 'app/lib/', reason: 'read-elsewhere', detail: 'as lib/' }]);
    }
    const same = await scanWorkspace([lib, linked, root('deep', path.join(link, 'deep'))]);
    expect(same.files.map((file) => file.path)).toEqual(['lib/c.ts', 'deep/d.ts']);
    expect(same.skipped).toEqual([
      { path: 'lib/deep/', reason: 'read-elsewhere', detail: 'as deep/' },
      { path: 'lib-2/', reason: 'read-elsewhere', detail: 'as lib/' },
    ]);
    // What the outer one would not read is read where it is named.
    writeFileSync(path.join(outer, '.ignore'), 'lib/\n');
    expect((await scanWorkspace([app, lib])).files.map((file) => file.path)).toContain('lib/c.ts');
  });

  it('knows folders and patterns in any case where the system does', async () => {
    const outer = repository([
      ['Lib/c.ts', 'c'],
      ['Out/d.ts', 'd'],
      ['docs/e.md', 'e'],
      ['vendor/Mine/f.ts', 'f'],
    ]);
    // What such a system opens as Lib.
    symlinkSync('Lib', path.join(outer, 'lib'));
    const roots = [
      { name: 'App', folder: outer },
      { name: 'lib', folder: path.join(outer, 'lib') },
    ];
    const options = { include: ['app/Vendor/mine/'], exclude: ['app/out/', 'lib/docs/'] };
    const paths = async () => (await scanWorkspace(roots, options)).files.map((file) => file.path).sort();
    expect(await onPlatform('linux', paths)).toEqual(['App/Out/d.ts', 'App/docs/e.md', 'lib/c.ts']);
    for (const platform of ['win32', 'darwin'] as const)
      expect(await onPlatform(platform, paths)).toEqual([
        'App/docs/e.md',
        'App/vendor/Mine/f.ts',
        'lib/c.ts',
      ]);
  });

  it('takes backslashes for slashes in patterns on Windows', async () => {
    const folder = repository([
      ['a.ts', 'x'],
      ['src/generated/b.ts', 'x'],
      ['vendor/mine/c.ts', 'x'],
    ]);
    const options = { include: ['vendor\\mine\\'], exclude: ['src\\generated'] };
    const paths = async () => (await scanFolder(folder, options)).files.map((file) => file.path);
    expect(await onPlatform('linux', paths)).toEqual(['a.ts', 'src/generated/b.ts']);
    expect(await onPlatform('win32', paths)).toEqual(['a.ts', 'vendor/mine/c.ts']);
  });

  it('says so when no folder is open', async () => {
    await expect(scanWorkspace([])).rejects.toMatchObject({ code: 'no_workspace' });
  });

  it("knows from git's history when a file changed, whatever its time on disk", async () => {
    const folder = repository([
      ['old file é.ts', 'a'],
      ['sub/new.ts', 'b'],
      ['untracked.ts', 'c'],
    ]);
    const git = (date: string, ...args: string[]) =>
      execFileSync('git', ['-c', 'user.name=x', '-c', 'user.email=x@x', ...args], {
        cwd: folder,
        env: { ...process.env, GIT_COMMITTER_DATE: date, GIT_AUTHOR_DATE: date },
        stdio: 'ignore',
      });
    const early = '2020-01-01T00:00:00Z';
    const late = '2021-01-01T00:00:00Z';
    git(early, 'init');
    git(early, 'add', 'old file é.ts');
    git(early, 'commit', '-m', 'x');
    git(late, 'add', 'sub');
    git(late, 'commit', '-m', 'y');
    const { files } = await scanFolder(folder, { gitHistory: true });
    const changed = new Map(files.map((file) => [file.path, file.changedMs]));
    expect(changed.get('old file é.ts')).toBe(Date.parse(early));
    expect(changed.get('sub/new.ts')).toBe(Date.parse(late));
    expect(changed.get('untracked.ts')).toBe(files.find((file) => file.path === 'untracked.ts')?.mtimeMs);
  });

  it('walks 100,000 files while other work goes on, and stops when it is told to', async () => {
    const folder = mkdtempSync(path.join(tmpdir(), 'longview-large-'));
    for (let i = 0; i < 100; i++) {
      mkdirSync(path.join(folder, `d${i}`));
      for (let j = 0; j < 1000; j++) writeFileSync(path.join(folder, `d${i}`, `f${j}.ts`), 'x');
    }
    const heap = process.memoryUsage().heapUsed;
    let longest = 0;
    let last = performance.now();
    const beat = setInterval(() => {
      longest = Math.max(longest, performance.now() - last);
      last = performance.now();
    }, 5);
    const start = performance.now();
    const { files } = await scanFolder(folder);
    const seconds = (performance.now() - start) / 1000;
    clearInterval(beat);
    console.log(`100,000 files in ${seconds.toFixed(1)} s, longest pause ${longest.toFixed(0)} ms`);
    expect(files.length).toBe(100_000);
    // Half a kilobyte a file, and what the collector has not taken yet; contents are not kept.
    expect(process.memoryUsage().heapUsed - heap).toBeLessThan(200 * 2 ** 20);
    // A blocking walk would let no beat through at all.
    expect(longest).toBeLessThan(seconds * 500);

    const stop = new AbortController();
    setTimeout(() => stop.abort(), 20);
    await expect(scanFolder(folder, { signal: stop.signal })).rejects.toMatchObject({ code: 'cancelled' });
    rmSync(folder, { recursive: true });
  }, 300_000);
});
