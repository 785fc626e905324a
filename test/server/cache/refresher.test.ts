/** Edits while the server runs: read in the background, counted when they are not saved, packed afresh when they pile up. */
import { mkdtempSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { Refresher } from '../../../server/answers/refresher';
import { rootOf, Session } from '../../../server/answers/session';
import { openModel, type OpenModel } from '../../../server/models/openModel';
import { nameKey } from '../../../server/platform/fileNames';
import type { Freshness } from '../../../server/protocol';
import { builtInModel, root, writeFolder } from '../reference';

const folder = mkdtempSync(path.join(tmpdir(), 'longview-refresh-'));
const file = path.join(folder, 'config.py');
const config = (limit: number, lines = 1) =>
  `RETRY_LIMIT = ${limit}\n${Array.from({ length: lines }, (_, i) => `STEP_${i} = ${i * 7}\n`).join('')}`;
const packText = readFileSync(path.join(root, 'server/prompt/pack.ts'), 'utf8');
const unsaved = new Map<string, string>();
let model: OpenModel;
let session: Session;
let refresher: Refresher;
let seen: Freshness[] = [];
const failures: string[] = [];

beforeAll(async () => {
  writeFolder(folder, [
    ['pack.ts', packText.slice(0, 6000)],
    ['lock.ts', readFileSync(path.join(root, 'server/lock.ts'), 'utf8')],
    ['config.py', config(17)],
  ]);
  model = await openModel(builtInModel);
  session = await Session.create(model, [rootOf(folder)], {
    unsavedTexts: () => unsaved,
    rebasesInBackground: true,
  });
  refresher = new Refresher(session, {
    onFreshness: (freshness) => seen.push(freshness),
    onFailure: (message) => failures.push(message),
    quietMs: 20,
  });
}, 60_000);
afterAll(async () => {
  await refresher.dispose();
  await session.dispose();
  await model.dispose();
  rmSync(folder, { recursive: true });
});

const current = () => expect.poll(() => seen.at(-1)?.state, { timeout: 60_000 }).toBe('current');
const ask = () => session.ask({ question: 'What is the value of `RETRY_LIMIT`?' });

describe('keeping up with the files', { timeout: 180_000 }, () => {
  it('does nothing before the repository is read', async () => {
    refresher.poke();
    await session.context();
    expect(seen).toEqual([]);
  });

  it('does not go on with a reading that was stopped', async () => {
    const stop = new AbortController();
    const reading = session.prefill({ signal: stop.signal, onProgress: () => stop.abort() });
    await expect(reading).rejects.toMatchObject({ code: 'cancelled' });
    const { length } = session.state;
    expect(length).toBeGreaterThan(0);
    writeFileSync(file, config(18));
    refresher.poke();
    await new Promise((done) => setTimeout(done, 300));
    expect([seen, session.state.length]).toEqual([[], length]);
    writeFileSync(file, config(17));
  });

  it('reads a saved edit in the background: the next question costs its own tokens', async () => {
    const first = await ask();
    const own = first.stats.promptTokens - first.stats.reusedTokens;
    writeFileSync(file, config(23));
    refresher.poke();
    await current();
    expect(seen).toEqual([
      { state: 'changed', changedFiles: 1 },
      { state: 'refreshing', changedFiles: 1 },
      { state: 'current', changedFiles: 0 },
    ]);
    const { answer, stats } = await ask();
    expect(answer).toContain('23');
    expect(stats.promptTokens - stats.reusedTokens).toBeLessThan(40);
    expect(own).toBeGreaterThan(1000);
  });

  it('replaces the version of a file that is saved again and again', async () => {
    for (const limit of [31, 32, 33]) {
      seen = [];
      writeFileSync(file, config(limit));
      refresher.poke();
      await current();
    }
    expect(session.repository?.overlayTokens).toBeLessThan(60);
    expect((await ask()).answer).toContain('33');
  });

  it('looks again at what is saved while it reads', async () => {
    const states: Freshness[] = [];
    const watching = new Refresher(session, {
      onFreshness: (freshness) => {
        states.push(freshness);
        if (freshness.state !== 'refreshing' || states.length > 2) return;
        writeFileSync(file, config(33));
        watching.poke();
      },
      onFailure: (message) => failures.push(message),
      quietMs: 1,
    });
    writeFileSync(file, config(34));
    watching.poke();
    const all = [1, 2].flatMap(() => ['changed', 'refreshing', 'current']);
    await expect.poll(() => states.map(({ state }) => state), { timeout: 60_000 }).toEqual(all);
    await watching.dispose();
  });

  it('counts a text that is not saved in a question, and leaves it alone beside that', async () => {
    unsaved.set(nameKey(file), config(55));
    expect((await ask()).answer).toContain('55');
    seen = [];
    refresher.poke();
    await current();
    expect(seen).toEqual([{ state: 'current', changedFiles: 0 }]);
    unsaved.delete(nameKey(file));
    expect((await ask()).answer).toContain('33');
  });

  it('says that files changed, and why they are not read, where there is no memory to read them', async () => {
    const { kvBytesPerToken } = model.engine.model;
    const tight = await openModel(builtInModel, { kvBudgetBytes: 2048 * kvBytesPerToken });
    const small = mkdtempSync(path.join(tmpdir(), 'longview-short-'));
    writeFolder(small, [['config.py', config(17, 20)]]);
    const short = await Session.create(tight, [rootOf(small)]);
    const states: Freshness[] = [];
    const why: string[] = [];
    const watching = new Refresher(short, {
      onFreshness: (freshness) => states.push(freshness),
      onFailure: (message) => why.push(message),
      quietMs: 20,
    });
    await short.prefill();
    const hog = await tight.engine.createContext();
    const fill = async () => {
      for (let i = 0; i < 100; i++) await hog.extend(new Int32Array(128).fill(1000 + i));
    };
    await expect(fill()).rejects.toMatchObject({ code: 'out_of_memory' });
    writeFileSync(path.join(small, 'config.py'), config(23, 60));
    watching.poke();
    await expect.poll(() => why.length, { timeout: 60_000 }).toBe(1);
    expect(states.at(-1)).toEqual({ state: 'changed', changedFiles: 1 });
    await hog.dispose();
    watching.poke();
    await expect.poll(() => states.at(-1)?.state, { timeout: 60_000 }).toBe('current');
    await watching.dispose();
    await short.dispose();
    await tight.dispose();
    rmSync(small, { recursive: true });
  });

  it('counts the files that changed where all are packed afresh for want of room', async () => {
    const { kvBytesPerToken } = model.engine.model;
    const tight = await openModel(builtInModel, { kvBudgetBytes: 2048 * kvBytesPerToken });
    const full = mkdtempSync(path.join(tmpdir(), 'longview-full-'));
    const value = (name: string, lines: number) => `${name} = compute(${name})\n`.repeat(lines);
    writeFolder(full, [
      ['one.py', value('one', 35)],
      ['two.py', value('two', 35)],
      ['three.py', value('three', 48)],
      ['four.py', value('four', 200)],
    ]);
    const short = await Session.create(tight, [rootOf(full)], { rebasesInBackground: true });
    const states: Freshness[] = [];
    const watching = new Refresher(short, {
      onFreshness: (freshness) => states.push(freshness),
      onFailure: (message) => failures.push(message),
      quietMs: 20,
    });
    const save = async (lines: number) => {
      states.length = 0;
      writeFileSync(path.join(full, 'two.py'), value('two', lines));
      watching.poke();
      await expect.poll(() => states.at(-1)?.state, { timeout: 60_000 }).toBe('current');
      const { files, overlayTokens } = short.repository!;
      return { states: [...states], paths: files.map((file) => file.path).sort(), overlayTokens };
    };
    await short.prefill();
    const changed = [
      { state: 'changed', changedFiles: 1 },
      { state: 'refreshing', changedFiles: 1 },
      { state: 'current', changedFiles: 0 },
    ];
    const paths = ['one.py', 'three.py', 'two.py'];
    expect(await save(38)).toEqual({ states: changed, paths, overlayTokens: 0 });
    // What leaves for want of room did not change, nor what comes back; what has grown too large did.
    expect(await save(47)).toMatchObject({ states: changed, paths: ['one.py', 'two.py'] });
    expect(await save(70)).toMatchObject({ states: changed, paths: ['one.py', 'three.py'] });
    expect(await save(35)).toMatchObject({ states: changed, paths });
    // A file that went and came back as it was is read where it stands now.
    rmSync(path.join(full, 'one.py'));
    await short.pack();
    writeFileSync(path.join(full, 'one.py'), value('one', 35));
    states.length = 0;
    watching.poke();
    await expect.poll(() => states, { timeout: 60_000 }).toEqual([{ state: 'current', changedFiles: 0 }]);
    expect(short.isRead).toBe(true);
    await watching.dispose();
    await short.dispose();
    await tight.dispose();
    rmSync(full, { recursive: true });
  });

  it('packs afresh what is more than a fiftieth when nobody asks or saves for a while', async () => {
    const large = mkdtempSync(path.join(tmpdir(), 'longview-idle-'));
    writeFolder(large, [
      ['pack.ts', packText],
      ['config.py', config(17)],
    ]);
    const idle = await Session.create(model, [rootOf(large)], { rebasesInBackground: true });
    const looks = vi.spyOn(idle, 'changedFiles');
    const rebases = vi.spyOn(idle, 'rebase');
    const states: Freshness[] = [];
    const watching = new Refresher(idle, {
      onFreshness: (freshness) => states.push(freshness),
      onFailure: (message) => failures.push(message),
      quietMs: 20,
      idleMs: 1000,
    });
    const save = (limit: number) => writeFileSync(path.join(large, 'config.py'), config(limit, 35));
    const question = 'What is the value of `RETRY_LIMIT`?';
    await idle.prefill();
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] });
    try {
      const looksOnce = async () => {
        states.length = 0;
        looks.mockClear();
        vi.advanceTimersByTime(20);
        await expect.poll(() => states.at(-1)?.state, { timeout: 60_000 }).toBe('current');
        vi.advanceTimersByTime(600);
        expect(looks).toHaveBeenCalledTimes(1);
        expect(rebases).not.toHaveBeenCalled();
      };
      save(22);
      watching.poke();
      watching.poke();
      await looksOnce();
      // Read as a later version, and too little to be packed afresh at once.
      expect(idle.repository?.overlayTokens).toBeGreaterThan(256);
      expect(idle.rebaseDue).toBe(false);
      // Who saves is not away, nor who asks.
      save(23);
      watching.poke();
      await looksOnce();
      await idle.ask({ question });
      watching.wasRead();
      await looksOnce();
      vi.advanceTimersByTime(400);
      await expect.poll(() => rebases.mock.calls.length, { timeout: 60_000 }).toBe(1);
      const overlay = () => idle.repository?.overlayTokens;
      await expect.poll(overlay, { timeout: 60_000, interval: 20 }).toBe(0);
    } finally {
      vi.useRealTimers();
    }
    const { answer, stats } = await idle.ask({ question });
    expect(answer).toContain('23');
    expect(stats.promptTokens - stats.reusedTokens).toBeLessThan(40);
    await watching.dispose();
    await idle.dispose();
    rmSync(large, { recursive: true });
  });

  it('says why packing afresh failed, and does it when that has passed', async () => {
    const moved = mkdtempSync(path.join(tmpdir(), 'longview-moved-'));
    const away = `${moved}-away`;
    writeFolder(moved, [
      ['pack.ts', packText.slice(0, 6000)],
      ['config.py', config(17)],
    ]);
    const own = await Session.create(model, [rootOf(moved)], { rebasesInBackground: true });
    const why: string[] = [];
    let stays = false;
    const watching = new Refresher(own, {
      // All is read: what begins now is packing afresh.
      onFreshness: ({ state }) => {
        if (state === 'current' && !stays) renameSync(moved, away);
      },
      onFailure: (message) => why.push(message),
      quietMs: 20,
    });
    await own.prefill();
    writeFileSync(path.join(moved, 'config.py'), config(23, 60));
    watching.poke();
    await expect
      .poll(() => why, { timeout: 60_000 })
      .toEqual([expect.stringContaining(`no folder ${moved}`)]);
    expect(own.rebaseDue).toBe(true);
    renameSync(away, moved);
    stays = true;
    watching.poke();
    await expect.poll(() => own.repository?.overlayTokens, { timeout: 60_000 }).toBe(0);
    await watching.dispose();
    expect(why).toHaveLength(1);
    await own.dispose();
    rmSync(moved, { recursive: true });
  });

  it('packs afresh when edits pass a tenth, while questions are answered from the former state', async () => {
    seen = [];
    writeFileSync(file, config(77, 60));
    refresher.poke();
    await current();
    const { answer } = await ask();
    expect(answer).toContain('77');
    await expect
      .poll(
        async () => {
          await session.context();
          return session.repository?.overlayTokens;
        },
        { timeout: 120_000 },
      )
      .toBe(0);
    expect((await ask()).answer).toContain('77');
    const again = await ask();
    expect(again.stats.promptTokens - again.stats.reusedTokens).toBeLessThan(40);
    expect(failures).toEqual([]);
  });
});
