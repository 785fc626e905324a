/** The state of a workspace outlives its server: restarts, crashes, edits in between, damaged and unwritable disks. */
import { spawn, spawnSync } from 'node:child_process';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { rootOf, Session } from '../../../server/answers/session';
import { clearCache, savedWorkspaces } from '../../../server/cache/storage';
import { WorkspaceCache } from '../../../server/cache/workspaceCache';
import { openModel } from '../../../server/models/openModel';
import type { Status } from '../../../server/protocol';
import { ServerClient, type Answer } from '../../eval/serverClient';
import { builtInModel, root, writeFolder } from '../reference';
import { noFiles } from './packing';

const parent = mkdtempSync(path.join(tmpdir(), 'longview-restart-'));
const folder = path.join(parent, 'repository');
const saved = path.join(parent, 'saved');
const config = (limit: number) =>
  `RETRY_LIMIT = ${limit}\n\n\ndef load_config(path):\n    return open(path).read()\n`;
const questions = ['What is the value of `RETRY_LIMIT`?', 'Where is `load_config` defined?'];
const ownTokens = ({ stats }: Answer) => stats.promptTokens - stats.reusedTokens;

let server: ServerClient | undefined;
let statuses: Status[] = [];
const firstAnswers: Answer[] = [];
let question = 0;

async function start(savedStates = saved): Promise<ServerClient> {
  statuses = [];
  server = await ServerClient.start(folder, {}, (status) => statuses.push(status), savedStates);
  return server;
}

/** Until everything that was read is on disk. */
async function untilSaved(): Promise<void> {
  const done = () => {
    const state = statuses.at(-1)?.saved;
    if (!state || state.total === 0 || state.tokens < state.total) throw new Error(JSON.stringify(state));
  };
  await vi.waitFor(done, { timeout: 30_000, interval: 20 });
}

beforeAll(async () => {
  writeFolder(folder, [
    ['lib/order.ts', readFileSync(path.join(root, 'server/errors.ts'), 'utf8')],
    ['lib/lock.ts', readFileSync(path.join(root, 'server/lock.ts'), 'utf8')],
    ['lib/budget.ts', readFileSync(path.join(root, 'server/prompt/budget.ts'), 'utf8')],
    ['app/config.py', config(17)],
    ['app/main.py', 'from config import load_config\n\nload_config("settings.ini")\n'],
  ]);
  const running = await start();
  for (const text of questions) firstAnswers.push(await running.ask(text));
  question = ownTokens(firstAnswers[1]!);
  await untilSaved();
  await running.stop();
}, 180_000);
afterAll(async () => {
  await server?.stop().catch(() => undefined);
  rmSync(parent, { recursive: true, force: true });
});

describe('a restarted server', { timeout: 180_000 }, () => {
  it('costs a question its own tokens, and answers as before, token for token', async () => {
    const running = await start();
    const again = [await running.ask(questions[0]!), await running.ask(questions[1]!)];
    expect(again.map(({ answer }) => answer)).toEqual(firstAnswers.map(({ answer }) => answer));
    expect(ownTokens(again[0]!)).toBeLessThan(40);
    const { tokens } = again[0]!.stats.loaded!;
    expect(tokens).toBeGreaterThan(256);
    const loading = statuses.flatMap(({ prefill }) => (prefill && prefill.done <= tokens ? prefill : []));
    expect(loading).not.toEqual([]);
    expect(loading.filter(({ etaSeconds }) => etaSeconds !== undefined)).toEqual([]);
    expect(again[1]!.stats.loaded).toBeUndefined();
    expect(ownTokens(again[1]!)).toBe(question);
    await running.stop();
  });

  it('reads a file that was edited meanwhile as a later version, for the tokens of the edit', async () => {
    const text = config(23);
    writeFileSync(path.join(folder, 'app/config.py'), text);
    const running = await start();
    const after = await running.ask(questions[0]!);
    expect(after.answer).toContain('23');
    const { files } = await running.context();
    const { tokens } = files.find((file) => file.path === 'app/config.py')!;
    // What is loaded is whole pages of 128 tokens.
    expect(ownTokens(after)).toBeLessThanOrEqual(tokens + question + 128 + 16);
    await untilSaved();
    await running.stop();
  });

  it('knows of added, deleted, renamed and ignored files', async () => {
    rmSync(path.join(folder, 'app/main.py'));
    writeFileSync(path.join(folder, 'app/start.py'), 'MAIN_DELAY = 41\n');
    writeFileSync(path.join(folder, '.gitignore'), 'budget.ts\n');
    const running = await start();
    const after = await running.ask('What is the value of `MAIN_DELAY`?');
    expect(after.answer).toContain('41');
    const { files } = await running.context();
    const paths = files.map((file) => file.path);
    expect(paths).toContain('app/start.py');
    expect(paths).not.toContain('app/main.py');
    expect(paths).not.toContain('lib/budget.ts');
    expect(ownTokens(after)).toBeLessThan(300);
    await running.stop();
  });

  it('goes on after kill -9', async () => {
    const running = await start();
    const before = await running.ask(questions[0]!);
    await running.kill();
    const after = await (await start()).ask(questions[0]!);
    expect(after.answer).toBe(before.answer);
    expect(after.stats.reusedTokens).toBeGreaterThan(0);
    await server!.stop();
  });

  it('shares what is saved with a second server on the workspace, while both run', async () => {
    const one = await start();
    const two = await ServerClient.start(folder, {}, () => {}, saved);
    const answers = await Promise.all([one.ask(questions[0]!), two.ask(questions[0]!)]);
    expect(answers[0].answer).toBe(answers[1].answer);
    for (const { stats } of answers) expect(stats.reusedTokens).toBeGreaterThan(0);
    await Promise.all([one.stop(), two.stop()]);
  });

  it('reads again what is damaged, and says so in one line', async () => {
    const [name] = readdirSync(saved);
    const segment = path.join(saved, name!, 'pages-00000.bin');
    const bytes = readFileSync(segment);
    for (let at = Math.floor(bytes.length / 4); at < bytes.length; at += 1 << 20) bytes[at]! ^= 1;
    writeFileSync(segment, bytes);
    const running = await start();
    const after = await running.ask(questions[0]!);
    expect(after.answer).toContain('23');
    expect(statuses.some(({ saved: state }) => state?.note !== undefined && /damaged/.test(state.note))).toBe(
      true,
    );
    await untilSaved();
    await running.stop();
    const mended = await (await start()).ask(questions[0]!);
    expect(ownTokens(mended)).toBeLessThan(40);
    await server!.stop();
  });

  it('answers where nothing can be saved, and says why', async () => {
    const file = path.join(parent, 'a file');
    writeFileSync(file, '');
    const running = await start(path.join(file, 'saved'));
    expect((await running.ask(questions[0]!)).answer).toContain('23');
    await expect.poll(() => statuses.at(-1)?.saved?.note).toMatch(/could not be saved/);
    expect((await running.ask(questions[1]!)).answer).not.toBe('');
    await running.stop();
  });

  it('answers where the disk is full, and says so', async ({ skip }) => {
    const disk = path.join(parent, 'disk');
    mkdirSync(disk);
    const mount = spawnSync('mount', ['-t', 'tmpfs', '-o', 'size=1m', 'tmpfs', disk]);
    skip(mount.status !== 0, 'a small file system can be mounted by root alone');
    try {
      const running = await start(path.join(disk, 'saved'));
      expect((await running.ask(questions[0]!)).answer).toContain('23');
      await expect.poll(() => statuses.at(-1)?.saved?.note).toMatch(/could not be saved\. The disk is full/);
      const after = await running.ask(questions[1]!);
      // The end of the answer before may be read with it.
      expect(ownTokens(after)).toBeLessThanOrEqual(question + 4);
      await running.stop();
    } finally {
      spawnSync('umount', [disk]);
    }
  });

  it('says that something could not be saved also right behind the progress of what could', async () => {
    const tight = path.join(parent, 'tight');
    const startTight = () =>
      ServerClient.start(folder, { cacheMaxGiB: 0.01 }, (status) => statuses.push(status), tight);
    const first = await startTight();
    await first.ask(questions[0]!);
    const label = () => path.join(tight, readdirSync(tight)[0] ?? 'none', 'label.json');
    await expect.poll(() => existsSync(label())).toBe(true);
    await first.stop();
    const nowhere = label();
    rmSync(path.dirname(nowhere), { recursive: true });
    mkdirSync(nowhere, { recursive: true });
    statuses = [];
    const second = await startTight();
    await second.ask(questions[0]!);
    const saved = () => statuses.at(-1)?.saved;
    await expect.poll(() => saved()?.note).toMatch(/could not be saved\. EISDIR/);
    expect(saved()).toMatchObject({ failed: true });
    expect(saved()!.tokens).toBeLessThan(saved()!.total);
    await second.stop();
  });

  it('goes on from what is saved, and sees edits, whatever the clock and the times of files say', async () => {
    const file = path.join(folder, 'app/config.py');
    const expected = await (await start()).ask(questions[0]!);
    await untilSaved();
    await server!.stop();
    const setTimes = (below: string, seconds: number) => {
      for (const name of readdirSync(below, { recursive: true, encoding: 'utf8' }))
        utimesSync(path.join(below, name), seconds, seconds);
    };
    // The clock was decades ahead when all was saved, and is decades behind when it is read; then the other way round.
    for (const [ofSaved, ofFiles] of [
      [4_000_000_000, 1],
      [1, 4_000_000_000],
    ] as const) {
      setTimes(saved, ofSaved);
      setTimes(folder, ofFiles);
      const again = await (await start()).ask(questions[0]!);
      expect(again.answer).toBe(expected.answer);
      expect(ownTokens(again)).toBeLessThan(40);
      await server!.stop();
    }
    // An edit of the same size that leaves the file's time as it was.
    writeFileSync(file, config(29));
    utimesSync(file, 4_000_000_000, 4_000_000_000);
    const edited = await (await start()).ask(questions[0]!);
    expect(edited.answer).toContain('29');
    await untilSaved();
    await server!.stop();
  });

  it('saves what is to be saved at the very moment when the saving before it ends', async () => {
    const model = await openModel(builtInModel);
    const context = await model.engine.createContext();
    const bases = [1, 2].map((id) => new Int32Array(200).fill(1000 + id)) as [Int32Array, Int32Array];
    await context.extend(bases[0]);
    for (let ticks = 0; ticks < 8; ticks++) {
      const options = { root: path.join(parent, `moment ${ticks}`), maxBytes: 30e6 };
      const last = async () => {
        for (let i = 0; i < ticks; i++) await Promise.resolve();
        cache.save(context, { ...noFiles, base: bases[1] });
      };
      let ended: Promise<void> | undefined;
      // A label is the last that is written of the first one.
      const onChange = () => {
        if (existsSync(path.join(cache.folder, 'label.json'))) ended ??= last();
      };
      const cache = new WorkspaceCache(model.engine, [], { ...options, onChange });
      cache.save(context, { ...noFiles, base: bases[0] });
      await expect.poll(() => ended !== undefined, { timeout: 30_000 }).toBe(true);
      await cache.finish();
      expect((await new WorkspaceCache(model.engine, [], options).restore())?.base).toEqual(bases[1]);
    }
    await model.dispose();
  });

  it('saves what another process keeps it from saving when that is done, which its own end does not wait for', async () => {
    const model = await openModel(builtInModel);
    const context = await model.engine.createContext();
    const packing = { ...noFiles, base: new Int32Array(256).fill(1000) };
    await context.extend(packing.base);
    const place = path.join(parent, 'busy');
    const cache = (busyMs?: number) =>
      new WorkspaceCache(model.engine, [], { root: place, maxBytes: 30e6, busyMs });
    const keptFromSaving = async (by: WorkspaceCache) => {
      mkdirSync(by.folder, { recursive: true });
      const other = spawn('flock', [path.join(by.folder, 'lock'), '-c', 'echo held; cat']);
      await new Promise((held) => other.stdout.once('data', held));
      by.save(context, packing);
      await expect.poll(() => by.saved.note).toMatch(/^Another window saves/);
      return () => new Promise((gone) => other.once('close', gone).stdin.end());
    };
    const ended = cache();
    const letGo = await keptFromSaving(ended);
    await ended.finish();
    expect(await cache().restore()).toBeUndefined();
    await letGo();

    const waiting = cache(10);
    const done = await keptFromSaving(waiting);
    expect(waiting.saved.tokens).toBe(0);
    await done();
    await expect.poll(() => waiting.saved, { timeout: 30_000 }).toEqual({ tokens: 256, total: 256 });
    expect((await cache().restore())?.base).toEqual(packing.base);
    await waiting.finish();
    await model.dispose();
  });

  it('keeps how the prompt was made also where the cache was cleared in between', async () => {
    const model = await openModel(builtInModel);
    const cacheRoot = path.join(parent, 'cleared');
    const roots = [rootOf(folder)];
    const cache = () => new WorkspaceCache(model.engine, roots, { root: cacheRoot, maxBytes: 30e6 });
    const context = await model.engine.createContext();
    const base = Int32Array.from({ length: 300 }, (_, i) => 1000 + i);
    await context.extend(base.subarray(0, 200));
    const packing = { ...noFiles, base };
    const cleared = cache();
    cleared.save(context, packing);
    await expect.poll(async () => (await savedWorkspaces(cacheRoot))[0]?.model).toBe(model.engine.model.name);
    await clearCache(cacheRoot);
    const other = path.join(cacheRoot, 'a'.repeat(24));
    writeFolder(other, [['pages-00000.bin', Buffer.alloc(29e6, 1)]]);
    await context.extend(base.subarray(200));
    cleared.save(context, packing);
    await cleared.finish();
    expect((await cache().restore())?.base).toEqual(base);
    // Both are too much for the disk's budget.
    expect(existsSync(other)).toBe(false);
    await model.dispose();
  });

  it('goes on with a reading that was stopped, from its last saved token', async () => {
    const large = path.join(parent, 'large');
    writeFolder(large, [['pack.ts', readFileSync(path.join(root, 'server/prompt/pack.ts'), 'utf8')]]);
    const open = async () => {
      const model = await openModel(builtInModel);
      const roots = [rootOf(large)];
      const cache = new WorkspaceCache(model.engine, roots, {
        root: path.join(parent, 'stopped'),
        maxBytes: 1e9,
      });
      const session = await Session.create(model, roots, { cache });
      const close = async () => {
        await session.dispose();
        await model.dispose();
      };
      return { model, session, close };
    };
    const first = await open();
    const stop = new AbortController();
    const reading = first.session.prefill({
      onProgress: ({ done }) => done > 0 && stop.abort(),
      signal: stop.signal,
    });
    await expect(reading).rejects.toMatchObject({ code: 'cancelled' });
    const read = first.session.state.length;
    expect(read).toBeGreaterThan(0);
    await first.close();
    const second = await open();
    const { tokens, reused } = await second.session.prefill();
    expect(reused).toBe(read);
    expect((await second.model.engine.counters()).prefilledTokens).toBe(tokens - read);
    await second.close();
  });

  it('ends with its editor, and keeps what it had read by then', async () => {
    const place = path.join(parent, 'vanished');
    const large = path.join(parent, 'large');
    writeFolder(large, [['pack.ts', readFileSync(path.join(root, 'server/prompt/pack.ts'), 'utf8')]]);
    let reading: () => void;
    const begun = new Promise<void>((done) => (reading = done));
    const onStatus = ({ prefill }: Status) => prefill && prefill.done > 0 && reading();
    const running = await ServerClient.start(large, {}, onStatus, place);
    running.ask(questions[0]!).catch(() => undefined);
    await begun;
    expect(await running.vanish()).toBe(1);
    const [state] = await savedWorkspaces(place);
    expect(state?.folders).toEqual([large]);
    expect(state?.bytes).toBeGreaterThan(1 << 20);
  });

  it('keeps what was read in 8 bits where the setting says so, apart from what is kept in 16', async () => {
    const folders = () => new Set(readdirSync(saved, { recursive: true }).map(String));
    const before = folders();
    const narrow = () =>
      ServerClient.start(folder, { cacheFormat: 'q8' }, (status) => statuses.push(status), saved);
    const first = await narrow();
    const read = await first.ask(questions[0]!);
    expect(read.stats.reusedTokens).toBe(0);
    await untilSaved();
    await first.stop();
    expect(folders().size).toBeGreaterThan(before.size);
    const second = await narrow();
    const again = await second.ask(questions[0]!);
    expect(again.stats.reusedTokens).toBeGreaterThan(0);
    expect(again.answer).toBe(read.answer);
    await second.stop();
  });

  it('keeps nothing where the budget is 0', async () => {
    const nowhere = path.join(parent, 'nowhere');
    const running = await ServerClient.start(folder, { cacheMaxGiB: 0 }, () => {}, nowhere);
    await running.ask(questions[0]!);
    await running.stop();
    expect(existsSync(nowhere)).toBe(false);
  });
});
