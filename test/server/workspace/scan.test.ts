import { execFileSync } from 'node:child_process';
import { mkdtempSync, symlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import { scanFolder } from '../../../server/workspace/scan';
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
