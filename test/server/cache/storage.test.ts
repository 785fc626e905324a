/** What goes when the disk's budget is used up, and what the terminal says about it. */
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { homedir, tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, describe, expect, it, vi } from 'vitest';
import { readPacking, writePacking } from '../../../server/cache/packingFile';
import {
  clearCache,
  defaultCacheFolder,
  evict,
  savedWorkspaces,
  writeLabel,
} from '../../../server/cache/storage';
import type { Packing } from '../../../server/prompt/packing';
import { root, writeFolder } from '../reference';

async function savedState(parent: string, name: string, bytes: number, usedSeconds: number): Promise<string> {
  const folder = path.join(parent, name.repeat(24));
  mkdirSync(folder);
  writeFileSync(path.join(folder, 'pages-00000.bin'), Buffer.alloc(bytes, 1));
  await writeLabel(folder, { folders: [`/home/${name}`], model: 'tiny' });
  utimesSync(path.join(folder, 'label.json'), usedSeconds, usedSeconds);
  return folder;
}

describe("the terminal's folder of saved states", () => {
  afterEach(() => void vi.unstubAllEnvs());

  it.each([
    ['', '/xdg', undefined],
    ['/given', '/xdg', '/given'],
    [undefined, '/xdg', '/xdg/longview'],
    [undefined, '', path.join(homedir(), '.cache/longview')],
  ])('where LONGVIEW_CACHE_DIR is %o and XDG_CACHE_HOME %o: %s', (given, xdg, folder) => {
    vi.stubEnv('LONGVIEW_CACHE_DIR', given);
    vi.stubEnv('XDG_CACHE_HOME', xdg);
    expect(defaultCacheFolder()).toBe(folder);
  });
});

describe('saved states', () => {
  it('go by their last use, whatever the clock says; the present one stays', async () => {
    const parent = mkdtempSync(path.join(tmpdir(), 'longview-storage-'));
    const old = await savedState(parent, 'a', 100_000, 1_000);
    const recent = await savedState(parent, 'b', 100_000, 2_000);
    const future = await savedState(parent, 'c', 100_000, 9_999_999_999);
    const own = await savedState(parent, 'd', 100_000, 0);
    mkdirSync(path.join(parent, 'not ours'));
    // Of a file with holes counts what it takes on the disk.
    writeFileSync(path.join(recent, 'manifest.bin'), '');
    truncateSync(path.join(recent, 'manifest.bin'), 2 ** 30);
    expect((await savedWorkspaces(parent)).map(({ folders }) => folders[0])).toEqual([
      '/home/c',
      '/home/b',
      '/home/a',
      '/home/d',
    ]);
    await evict(parent, 330_000, own);
    expect([old, recent, future, own].map((folder) => existsSync(folder))).toEqual([false, true, true, true]);
    await evict(parent, 1, own);
    expect(readdirSync(parent).sort()).toEqual(['d'.repeat(24), 'not ours']);
    expect(await clearCache(parent)).toBeGreaterThan(100_000);
    expect(readdirSync(parent)).toEqual(['not ours']);
  });
});

describe('saved states of several processes', () => {
  it('go once, whoever is first', async () => {
    const parent = mkdtempSync(path.join(tmpdir(), 'longview-storage-'));
    for (const name of 'abcdef') await savedState(parent, name, 1_000, 1_000);
    const own = await savedState(parent, '0', 1_000, 1_000);
    await Promise.all([evict(parent, 1, own), evict(parent, 1, own), evict(parent, 1, own)]);
    expect(readdirSync(parent)).toEqual(['0'.repeat(24)]);
    await Promise.all([clearCache(parent), clearCache(parent)]);
    expect(readdirSync(parent)).toEqual([]);
  });

  it('go with what one left that ended while it deleted, and that is counted', async () => {
    const parent = mkdtempSync(path.join(tmpdir(), 'longview-storage-'));
    const own = await savedState(parent, 'a', 1_000, 1_000);
    const leave = () => writeFolder(parent, [['.trash-0/pages-00000.bin', Buffer.alloc(500_000, 1)]]);
    leave();
    await evict(parent, 400_000, own);
    expect(readdirSync(parent)).toEqual(['a'.repeat(24)]);
    leave();
    expect(await clearCache(parent)).toBeGreaterThan(500_000);
    expect(readdirSync(parent)).toEqual([]);
  });
});

describe('a state that is being saved for the first time', () => {
  it('counts as used when it was written, not as the oldest', async () => {
    const parent = mkdtempSync(path.join(tmpdir(), 'longview-storage-'));
    const old = await savedState(parent, 'a', 100_000, 1_000);
    const first = await savedState(parent, 'b', 100_000, 0);
    rmSync(path.join(first, 'label.json'));
    utimesSync(first, 2_000, 2_000);
    const own = await savedState(parent, 'c', 100_000, 3_000);
    await evict(parent, 230_000, own);
    expect([old, first, own].map((folder) => existsSync(folder))).toEqual([false, true, true]);
  });
});

describe('a packing on disk', () => {
  const packing: Packing = {
    base: Int32Array.from([0, 2, 3, 4]),
    basePaths: ['a.py', 'b.py'],
    baseSizes: [2, 1],
    overlay: [{ path: 'a.py', ids: Int32Array.from([5, 6]) }],
    dead: 3,
    budget: 9,
    entries: new Map([
      [
        'a.py',
        {
          path: 'a.py',
          absolutePath: '/r/a.py',
          text: 'x',
          hash: 'h',
          tokens: 2,
          version: 2,
          bytes: 1,
          ctimeMs: 5.5,
        },
      ],
    ]),
    leftOut: [
      { path: 'c.py', reason: 'over-budget', detail: '9 tokens' },
      { path: 'd.py', reason: 'empty', bytes: 1, ctimeMs: 7.25 },
    ],
  };

  it('reads back as it was, without texts', async () => {
    const folder = mkdtempSync(path.join(tmpdir(), 'longview-packing-'));
    await writePacking(folder, packing);
    const read = await readPacking(folder, 7);
    const entry = {
      path: 'a.py',
      absolutePath: '',
      hash: 'h',
      tokens: 2,
      version: 2,
      bytes: 1,
      ctimeMs: 5.5,
    };
    expect(read).toEqual({ ...packing, entries: new Map([['a.py', entry]]) });
    expect(await readPacking(folder, 6)).toBeUndefined(); // a token outside the vocabulary
    expect(await readPacking(path.join(folder, 'nowhere'), 7)).toBeUndefined();
  });

  it('is gone on with where deleted files were not counted yet, nor sizes kept', async () => {
    const folder = mkdtempSync(path.join(tmpdir(), 'longview-packing-'));
    const older = { dead: undefined, budget: undefined, baseSizes: undefined } as unknown as Packing;
    await writePacking(folder, { ...packing, ...older });
    expect(await readPacking(folder, 7)).toMatchObject({ dead: 0, budget: 0, baseSizes: [] });
    await writePacking(folder, { ...packing, baseSizes: [3, 2] });
    expect(await readPacking(folder, 7)).toBeUndefined(); // more than there are
  });

  it('is one of those that two processes write at once, whole', async () => {
    const folder = mkdtempSync(path.join(tmpdir(), 'longview-packing-'));
    const long = { ...packing, base: new Int32Array(200_000).fill(5) };
    await Promise.all([writePacking(folder, long), writePacking(folder, packing)]);
    expect([4, 200_000]).toContain((await readPacking(folder, 7))?.base.length);
    expect(readdirSync(folder)).toEqual(['packing.bin']);
  });

  it('goes with what a process left that was killed while it wrote, and not with what one writes now', async () => {
    const folder = mkdtempSync(path.join(tmpdir(), 'longview-packing-'));
    const [left, ahead, fresh] = ['0', '1', '2'].map((digit) => `packing.bin.${digit.repeat(12)}.new`);
    for (const file of [left!, ahead!, fresh!, 'packing.bin.old'])
      writeFileSync(path.join(folder, file), 'x');
    utimesSync(path.join(folder, left!), 1, 1);
    utimesSync(path.join(folder, ahead!), 9_999_999_999, 9_999_999_999);
    utimesSync(path.join(folder, 'packing.bin.old'), 1, 1);
    await writePacking(folder, packing);
    expect(readdirSync(folder).sort()).toEqual(['packing.bin', fresh, 'packing.bin.old']);
  });

  it('stays where there is no room for the next one', async ({ skip }) => {
    const disk = mkdtempSync(path.join(tmpdir(), 'longview-packing-'));
    const mount = spawnSync('mount', ['-t', 'tmpfs', '-o', 'size=256k', 'tmpfs', disk]);
    skip(mount.status !== 0, 'a small file system can be mounted by root alone');
    try {
      await writePacking(disk, packing);
      const long = { ...packing, base: new Int32Array(200_000).fill(5) };
      await expect(writePacking(disk, long)).rejects.toMatchObject({ code: 'ENOSPC' });
      expect((await readPacking(disk, 7))?.base).toEqual(packing.base);
      expect(readdirSync(disk)).toEqual(['packing.bin']);
    } finally {
      spawnSync('umount', [disk]);
    }
  });

  it('is as good as absent, and waited for by nobody, where a link or a pipe lies in its place', async () => {
    const folder = mkdtempSync(path.join(tmpdir(), 'longview-packing-'));
    const elsewhere = mkdtempSync(path.join(tmpdir(), 'longview-packing-'));
    await writePacking(elsewhere, packing);
    await writeLabel(elsewhere, { folders: ['/home/a'], model: 'tiny' });
    const names = ['packing.bin', 'label.json'];
    const state = path.join(folder, '0'.repeat(24));
    mkdirSync(state);
    for (const name of names) symlinkSync(path.join(elsewhere, name), path.join(state, name));
    expect(await readPacking(state, 7)).toBeUndefined();
    expect(await savedWorkspaces(folder)).toMatchObject([{ folders: [], model: '' }]);
    for (const name of names) {
      rmSync(path.join(state, name));
      spawnSync('mkfifo', [path.join(state, name)]);
    }
    expect(await readPacking(state, 7)).toBeUndefined();
    expect(await savedWorkspaces(folder)).toMatchObject([{ folders: [], model: '' }]);
  });

  it('is as good as absent where its header is not what is written now, or does not add up', async () => {
    const folder = mkdtempSync(path.join(tmpdir(), 'longview-packing-'));
    const file = path.join(folder, 'packing.bin');
    await writePacking(folder, packing);
    const bytes = readFileSync(file);
    const end = 44 + bytes.readUInt32LE(40);
    type Header = Record<string, unknown> & Record<'entries' | 'overlay', Record<string, unknown>[]>;
    const readBody = (...parts: Buffer[]) => {
      const digest = createHash('sha256').update(Buffer.concat(parts)).digest();
      writeFileSync(file, Buffer.concat([bytes.subarray(0, 8), digest, ...parts]));
      return readPacking(folder, 7);
    };
    const read = (change: (header: Header) => unknown, ids = bytes.subarray(end)) => {
      const header = JSON.parse(bytes.toString('utf8', 44, end)) as Header;
      const json = Buffer.from(JSON.stringify(change(header) ?? header));
      const size = Buffer.alloc(4);
      size.writeUInt32LE(json.length);
      return readBody(size, json, ids);
    };
    const same = () => undefined;
    expect(await read(same)).toBeDefined();
    const negative = Buffer.from(bytes.subarray(end));
    negative.writeInt32LE(-1);
    for (const ids of [negative, bytes.subarray(end, -1), bytes.subarray(end, -4), Buffer.alloc(0)])
      expect(await read(same, ids)).toBeUndefined();
    for (const body of [[], [bytes.subarray(40, 43)], [Buffer.alloc(4, 255), bytes.subarray(44)]])
      expect(await readBody(...body)).toBeUndefined();
    const nothing = { basePaths: [], baseSizes: [], baseTokens: 0, overlay: [{ path: 'a.py', tokens: 6 }] };
    expect(await read((header) => ({ ...header, ...nothing }))).toBeUndefined();
    for (const other of [
      { frame: 'another' },
      { baseTokens: 3 },
      { baseTokens: -1 },
      { basePaths: [1] },
      { basePaths: {} },
      { baseSizes: [-1, 1] },
      { overlay: [null] },
      { dead: 0.5 },
      { leftOut: ['a.py'] },
      { leftOut: [{ path: 'a.py' }] },
    ])
      expect(await read((header) => ({ ...header, ...other })), JSON.stringify(other)).toBeUndefined();
    for (const member of ['path', 'hash', 'tokens', 'version', 'bytes', 'ctimeMs'])
      expect(await read(({ entries }) => void (entries[0]![member] = null)), member).toBeUndefined();
    for (const member of ['path', 'tokens'])
      expect(await read(({ overlay }) => void (overlay[0]![member] = null)), member).toBeUndefined();
    expect(await read(() => [])).toBeUndefined();
  });

  it('is as good as absent with any byte changed, cut or added', async () => {
    const folder = mkdtempSync(path.join(tmpdir(), 'longview-packing-'));
    await writePacking(folder, packing);
    const file = path.join(folder, 'packing.bin');
    const bytes = Buffer.alloc(statSync(file).size);
    const original = readFileSync(file);
    for (let at = 0; at < bytes.length; at += 3) {
      original.copy(bytes);
      bytes[at]! ^= 1 << (at % 8);
      writeFileSync(file, bytes);
      expect(await readPacking(folder, 7)).toBeUndefined();
      writeFileSync(file, original.subarray(0, at));
      expect(await readPacking(folder, 7)).toBeUndefined();
    }
    writeFileSync(file, Buffer.concat([original, Buffer.from([0])]));
    expect(await readPacking(folder, 7)).toBeUndefined();
  });
});

describe('longview in a terminal', () => {
  it('shares what was read between calls, and lists and clears it', { timeout: 120_000 }, () => {
    const parent = mkdtempSync(path.join(tmpdir(), 'longview-terminal-'));
    const env = { ...process.env, LONGVIEW_CACHE_DIR: 'saved', INIT_CWD: parent };
    writeFolder(path.join(parent, 'repo'), [['config.py', 'RETRY_LIMIT = 17\n'.repeat(40)]]);
    const run = (...args: string[]) => {
      const { stdout, stderr, status } = spawnSync(
        process.execPath,
        [path.join(root, 'dist/cli.js'), ...args, '--json'],
        { env, encoding: 'utf8' },
      );
      expect(status, stderr).toBe(0);
      return JSON.parse(stdout) as Record<string, unknown>;
    };
    const ask = () =>
      run('ask', '--repo', 'repo', 'What is the value of `RETRY_LIMIT`?') as {
        answer: string;
        stats: Record<string, number>;
      };
    const first = ask();
    expect(readdirSync(path.join(parent, 'saved'))).toHaveLength(1);
    const second = ask();
    expect(first.stats.reusedTokens).toBe(0);
    expect(second.answer).toBe(first.answer);
    expect(second.stats.promptTokens! - second.stats.reusedTokens!).toBeLessThan(40);
    expect(run('cache')).toMatchObject({ saved: [{ folders: [path.join(parent, 'repo')] }] });
    expect((run('cache', 'clear') as { freedBytes: number }).freedBytes).toBeGreaterThan(1e6);
    expect(run('cache', 'list')).toEqual({ saved: [] });
  });
});
