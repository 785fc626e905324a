import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import { scanFolder, scanWorkspace } from '../../../server/workspace/scan';
import { writeFolder } from '../reference';

function repository(files: [string, string | Buffer][]): string {
  const folder = mkdtempSync(path.join(tmpdir(), 'longview-scan-'));
  writeFolder(folder, files);
  return folder;
}

describe('scanFolder', () => {
  it('takes the files that git would, with nested rules and negation', async () => {
    const folder = repository([
      ['.gitignore', '*.log\n/generated/\n!keep.log\n'],
      ['a.ts', 'a'],
      ['debug.log', 'x'],
      ['keep.log', 'x'],
      ['generated/g.ts', 'x'],
      ['sub/.gitignore', '*.ts\n!b.ts\n'],
      ['sub/a.ts', 'x'],
      ['sub/b.ts', 'x'],
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

  it('lists what it leaves out, with the reason, and never opens a pipe', async () => {
    const folder = repository([
      ['a.ts', 'a'],
      ['.env', 'KEY=1'],
      ['.env.example', 'KEY='],
      ['id_rsa', 'x'],
      ['yarn.lock', 'x'],
      ['lib.min.js', 'x'],
      ['big.txt', 'x'.repeat(3000)],
      ['empty.ts', ''],
      ['node_modules/m/index.js', 'x'],
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
      'empty.ts': 'empty',
      'node_modules/': 'dependency',
      'ev"il.ts': 'excluded',
      loop: 'link-loop',
      pipe: 'not-a-file',
    });
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
    // A blocking walk would let no beat through at all.
    expect(longest).toBeLessThan(seconds * 500);

    const stop = new AbortController();
    setTimeout(() => stop.abort(), 20);
    await expect(scanFolder(folder, { signal: stop.signal })).rejects.toMatchObject({ code: 'cancelled' });
    rmSync(folder, { recursive: true });
  }, 300_000);
});
