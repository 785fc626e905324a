/** What `npm run package` leaves for Linux x64: all that users get, and able to run where they are. */
import { execFileSync, spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { root } from './project';

const stage = join(root, 'build/linux-x64/package');
const packaged = existsSync(join(stage, 'dist/longview.node'));
if (!packaged) console.log('skipped: there is no package for Linux x64; `npm run package` makes it');

/** Versions of a library's symbols that a binary asks for: [2, 17] of GLIBC_2.17. */
function versions(file: string, library: string): number[][] {
  const found = readFileSync(join(stage, file))
    .toString('latin1')
    .matchAll(new RegExp(`\\b${library}_([0-9.]+)\0`, 'g'));
  return [...found].map(([, version]) => version!.split('.').map(Number));
}

describe.skipIf(!packaged)('the package', () => {
  it('holds the engine, the code for the GPU, the extension, and the model', () => {
    const list = execFileSync('npx', ['vsce', 'ls', '--no-dependencies'], { cwd: stage, encoding: 'utf8' });
    const names = list.split('\n');
    for (const name of [
      'extension.js',
      'server.js',
      'cli.js',
      'longview.node',
      'longview_cuda.so',
      'tiktoken_bg.wasm',
      'chat/view.js',
    ])
      expect(names).toContain(`dist/${name}`);
    expect(names).toContain('media/model/longview-135m-64k.Q5_0.gguf');
    expect(names.filter((name) => /\.(map|ts|cpp|cu)$/.test(name))).toEqual([]);
  });

  // Ubuntu 20.04, Debian 11 and RHEL 8 among them.
  it.each(['dist/longview.node', 'dist/longview_cuda.so'])(
    '%s asks for no glibc newer than VS Code does',
    (file) => {
      const asked = versions(file, 'GLIBC');
      expect(asked.length).toBeGreaterThan(0);
      for (const [major, minor] of asked) expect([major, minor! <= 28]).toEqual([2, true]);
      for (const library of ['GLIBCXX', 'CXXABI']) expect(versions(file, library)).toEqual([]);
    },
  );

  it('answers a question', { timeout: 120_000 }, () => {
    const repo = mkdtempSync(join(tmpdir(), 'longview-package-'));
    writeFileSync(
      join(repo, 'retry.py'),
      'MOST_TRIES = 7\n\n\ndef retry(call):\n    """Calls until it succeeds."""\n',
    );
    const args = [join(stage, 'dist/cli.js'), 'ask', '--repo', repo, 'Where is `retry` defined?'];
    const { status, stdout, stderr } = spawnSync(process.execPath, args, {
      encoding: 'utf8',
      env: { ...process.env, LONGVIEW_CACHE_DIR: '', LONGVIEW_MODEL: '' },
    });
    expect(stderr).not.toContain('no GPU code');
    expect(stderr).not.toContain('no vector instructions');
    expect(stdout).toContain('retry.py:4');
    expect(status).toBe(0);
  });
});
