/** The backend without its wire: what a question does when its model or its settings change under it. */
import { execFileSync } from 'node:child_process';
import {
  mkdtempSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import type { AskProgress, Settings } from '../../server/protocol';
import { Service } from '../../server/service';
import { plainSettings } from '../eval/settings';
import { builtInModel, root, writeFolder } from './reference';
import { WatchedService } from './watchedService';

const settings: Settings = { ...plainSettings, maxAnswerTokens: 64, cacheMaxGiB: 0 };
const question = 'What is the value of `RETRY_LIMIT`?';
const folder = mkdtempSync(path.join(tmpdir(), 'longview-service-'));
writeFolder(folder, [
  ['config.py', 'RETRY_LIMIT = 17\n'],
  ['lib/large.py', 'value = compute(value)\n'.repeat(50)],
]);
let watched: WatchedService;
let service: Service;

beforeEach(() => {
  const models = mkdtempSync(path.join(tmpdir(), 'longview-models-'));
  watched = new WatchedService(settings, 'app', folder, models);
  service = watched.service;
});
afterEach(() => service.dispose());

const ask = (onProgress: (progress: AskProgress) => void = () => {}, signal = new AbortController().signal) =>
  service.ask({ question }, onProgress, signal);
const messages = () => watched.statuses.map((status) => status.message);

describe('a question', () => {
  it('is asked again of the new session when settings change before its first word', async () => {
    let changed: Promise<void> | undefined;
    const { answer, stats } = await ask((progress) => {
      if (progress.kind === 'context')
        changed ??= service.change({ settings: { ...settings, exclude: ['lib/'] } });
    });
    await changed;
    expect(answer).toContain('17');
    expect(stats.files).toBe(1);
  });

  it('says that settings changed when it had begun to speak', async () => {
    let changed: Promise<void> | undefined;
    const asked = ask((progress) => {
      if (progress.kind === 'text')
        changed ??= service.change({ settings: { ...settings, maxAnswerTokens: 32 } });
    });
    await expect(asked).rejects.toMatchObject({ code: 'settings_changed' });
    await changed;
    expect(watched.statuses.at(-1)?.freshness).toBeUndefined();
    expect((await ask()).answer).toContain('17');
    expect(watched.statuses.at(-1)?.freshness?.state).toBe('current');
  });

  it('is read with progress of its own, as pasted code takes its time', async () => {
    const said: string[] = [];
    const ofRepository: string[] = [];
    const pasted = `${question}\n${'value = compute(value)\n'.repeat(40)}`;
    await service.ask(
      { question: pasted },
      (progress) => {
        if (progress.kind !== 'phase') return;
        said.push(progress.message);
        if (progress.prefill) ofRepository.push(progress.message);
      },
      new AbortController().signal,
    );
    expect(ofRepository.filter((message) => message.includes('question'))).toEqual([]);
    const [begin] = said.filter((message) => /^Reading the question: 0 of [\d,]+ tokens$/.test(message));
    const [end] = said.filter((message) => /^Reading the question: ([\d,]+) of \1 tokens/.test(message));
    expect(begin, said.join('\n')).toBeDefined();
    expect(end, said.join('\n')).toBeDefined();
    expect(said.indexOf(end!)).toBeLessThan(said.indexOf('Answering'));
  });

  it('has sources as long as its session is open', async () => {
    const { signal } = new AbortController();
    expect(await service.sources('none yet', signal)).toEqual({});
    const { conversationId } = await ask();
    const { sources } = await service.sources(conversationId, signal);
    expect(sources?.[0]).toMatchObject({ path: 'config.py', span: { startLine: 1, endLine: 1 } });
    await service.change({ settings: { ...settings, exclude: ['lib/'] } });
    expect(await service.sources(conversationId, signal)).toEqual({});
  });

  it('has the places of what was said checked when it is stopped', async () => {
    const folder = mkdtempSync(path.join(tmpdir(), 'longview-service-'));
    const body = Array.from({ length: 30 }, (_, i) => `    total = total + step_${i}(attempt)\n`).join('');
    writeFolder(folder, [['delay.py', `def compute_delay(attempt):\n${body}    return total\n`]]);
    await service.change({
      settings: { ...settings, maxAnswerTokens: 512 },
      roots: [{ name: 'app', folder }],
    });
    const stop = new AbortController();
    const places: AskProgress[] = [];
    let said = '';
    // The answer names the file before it shows the code.
    const listen = (progress: AskProgress) => {
      if (progress.kind === 'text') said += progress.text;
      if (said.includes('[delay.py#compute_delay]')) stop.abort();
      if (progress.kind === 'places') places.push(progress);
    };
    const asked = service.ask({ question: 'Show the code of `compute_delay`.' }, listen, stop.signal);
    await expect(asked).rejects.toMatchObject({ code: 'cancelled' });
    expect(places).toMatchObject([
      { citations: [{ path: 'delay.py', span: { startLine: 1, endLine: 1 } }], missing: [] },
    ]);
  });

  it('is not asked again when the server ends', async () => {
    let ended: Promise<void> | undefined;
    const asked = ask((progress) => {
      if (progress.kind === 'context') ended ??= service.dispose();
    });
    await expect(asked).rejects.toMatchObject({ code: 'cancelled' });
    await ended;
  });

  it.each([true, false])('stops at once while the model loads, ahead of it: %s', async (ahead) => {
    const stop = new AbortController();
    let loaded = false;
    watched.onStatus = (status) => (loaded ||= status.model !== undefined);
    if (ahead) void service.start();
    const asked = ask(undefined, stop.signal);
    setImmediate(() => stop.abort());
    await expect(asked).rejects.toMatchObject({ code: 'cancelled' });
    expect(loaded).toBe(false);
    expect((await ask()).answer).toContain('17');
  });
});

describe('a change', () => {
  const loaded = () => messages().some((message) => message.startsWith('Loading'));

  it('of the folders is in the next answer, and of the engine loads the model again', async () => {
    await service.start();
    const other = mkdtempSync(path.join(tmpdir(), 'longview-service-'));
    writeFolder(other, [['config.py', 'RETRY_LIMIT = 23\n']]);
    watched.statuses = [];
    await service.change({ roots: [{ name: 'other', folder: other }] });
    await service.change({ settings: { ...settings, maxFileKiB: 512 } });
    expect((await ask()).answer).toContain('23');
    expect(loaded()).toBe(false);
    expect(watched.statuses.at(-1)?.context).toMatchObject({ files: 1 });
    await service.change({ settings: { ...settings, prefillMode: 'dense' } });
    // Without a context, an open panel asks for it.
    expect(watched.statuses.at(-1)).toMatchObject({ phase: 'ready', context: undefined });
    await service.context(new AbortController().signal);
    expect(loaded()).toBe(true);
  });

  it('of whether hovers are wanted closes nothing', async () => {
    const hover = () => service.hover('RETRY_LIMIT = 17', 0, 3);
    const { conversationId } = await ask();
    expect(hover()).toBeUndefined();
    await service.change({ settings: { ...settings, hover: true } });
    expect(hover()).toMatchObject({ kind: 'markdown' });
    expect((await service.sources(conversationId, new AbortController().signal)).sources).toBeDefined();
  });
});

describe('a file that is saved while the repository is read', () => {
  it('counts as changed when that is done, and is read', async () => {
    const edited = mkdtempSync(path.join(tmpdir(), 'longview-service-'));
    writeFolder(edited, [['config.py', 'RETRY_LIMIT = 17\n']]);
    await service.change({ roots: [{ name: 'app', folder: edited }] });
    watched.onStatus = ({ phase }) => {
      if (phase !== 'reading') return;
      watched.onStatus = () => {};
      writeFolder(edited, [['config.py', 'RETRY_LIMIT = 23\n']]);
      service.filesChanged();
    };
    await service.prefill(new AbortController().signal);
    const states = () => watched.statuses.map(({ freshness }) => freshness?.state);
    await expect.poll(states, { timeout: 30_000 }).toContain('refreshing');
    await expect.poll(() => states().at(-1), { timeout: 30_000 }).toBe('current');
    expect((await ask()).answer).toContain('23');
  });
});

describe('a failure while saved files are looked at', () => {
  it('is said until that succeeds again', async () => {
    const parent = mkdtempSync(path.join(tmpdir(), 'longview-service-'));
    const [here, away] = ['here', 'away'].map((name) => path.join(parent, name)) as [string, string];
    writeFolder(here, [['config.py', 'RETRY_LIMIT = 17\n']]);
    await service.change({ roots: [{ name: 'app', folder: here }] });
    await ask();
    const { message } = watched.statuses.at(-1)!;
    const shows = (status: object) =>
      expect.poll(() => watched.statuses.at(-1), { timeout: 30_000 }).toMatchObject(status);
    renameSync(here, away);
    service.filesChanged();
    await shows({ health: 'warning', message: expect.stringContaining('There is no folder') as string });
    renameSync(away, here);
    service.filesChanged();
    await shows({ health: 'ok', message, freshness: { state: 'current' } });
  });
});

describe('a hover', () => {
  it.each(['RETRY_LIMIT', 'überprüfe', '$größe'])('leads to an explanation of %s', async (symbol) => {
    const names = mkdtempSync(path.join(tmpdir(), 'longview-service-'));
    writeFolder(names, [['names.js', `const ${symbol} = 17;\n`]]);
    await service.change({ settings: { ...settings, hover: true }, roots: [{ name: 'x', folder: names }] });
    await ask();
    const link = service.hover(`const ${symbol} = 17;`, 0, 7)!;
    expect(link.value).toContain(encodeURIComponent(JSON.stringify([symbol])));
    const { text } = await service.explain(symbol, new AbortController().signal);
    expect(text).not.toBe('');
    expect(service.hover(symbol, 0, 1)).toEqual({ kind: 'plaintext', value: text });
  });
});

describe("git's history", () => {
  it('is asked for the order of the files in a folder that is trusted, and in no other', async () => {
    const history = mkdtempSync(path.join(tmpdir(), 'longview-service-'));
    const git = (day: number, ...args: string[]) =>
      execFileSync('git', ['-c', 'user.name=x', '-c', 'user.email=x@x', ...args], {
        cwd: history,
        env: { ...process.env, GIT_COMMITTER_DATE: `2020-01-0${day}T00:00:00Z` },
      });
    git(1, 'init', '-q');
    const committed = (name: string, day: number, changed: number) => {
      writeFolder(history, [[name, 'x = 1\n']]);
      utimesSync(path.join(history, name), changed, changed);
      git(day, 'add', name);
      git(day, 'commit', '-q', '-m', 'x');
    };
    committed('a.py', 2, 1000);
    committed('b.py', 1, 2000);
    for (const [trusted, order] of [
      [true, ['b.py', 'a.py']],
      [false, ['a.py', 'b.py']],
    ] as const) {
      const roots = [{ name: 'history', folder: history }];
      const options = { settings, roots, modelsFolder: history, extensionFolder: root, trusted };
      const own = new Service({ ...options, onStatus: () => {} });
      const paths = async () =>
        (await own.context(new AbortController().signal)).files.map((file) => file.path);
      expect(await paths()).toEqual(order);
      // Trust that comes later is for what is packed afresh: what was read stays read.
      await own.trust();
      expect(await paths()).toEqual(order);
      writeFolder(history, [['c.py', 'x = 1\n'.repeat(200)]]);
      expect(await paths()).toEqual(['b.py', 'a.py', 'c.py']);
      rmSync(path.join(history, 'c.py'));
      await own.dispose();
    }
  });
});

describe('another model', () => {
  it('takes the place of the former one, which comes back when it does not load', async () => {
    await service.start();
    const broken = path.join(mkdtempSync(path.join(tmpdir(), 'longview-broken-')), 'broken.gguf');
    const bytes = readFileSync(builtInModel);
    const useBroken = async () => {
      watched.statuses = [];
      writeFileSync(broken, bytes);
      await expect(service.useModel(broken)).rejects.toThrow(broken);
      expect(watched.statuses.at(-1)).toMatchObject({ phase: 'ready', health: 'warning' });
      expect((await ask()).answer).toContain('17');
      return messages().filter((message) => message === `Loading ${path.basename(builtInModel)}`).length;
    };
    // Its weights: only who loads them sees that one is missing.
    bytes.write('ffn_uq', bytes.indexOf('blk.18.ffn_up.weight') + 'blk.18.'.length);
    expect(await useBroken()).toBe(1);
    // What its first bytes show does not cost the former model its place.
    bytes.write('GGUX');
    expect(await useBroken()).toBe(0);
  });
});

describe('a model that is stopped while it loads', () => {
  const chosen = () => {
    const file = path.join(mkdtempSync(path.join(tmpdir(), 'longview-chosen-')), 'another.gguf');
    symlinkSync(builtInModel, file);
    return file;
  };
  const stopped = async (file: string) => {
    const stop = new AbortController();
    watched.onStatus = ({ message }) => message.startsWith('Loading another.gguf') && stop.abort();
    watched.statuses = [];
    await expect(service.useModel(file, stop.signal)).rejects.toMatchObject({ code: 'cancelled' });
    expect(watched.statuses.at(-1)).toMatchObject({ phase: 'ready', health: 'ok' });
    expect(watched.statuses.every(({ health }) => health === 'ok')).toBe(true);
  };

  it('leaves the former one in its place', async () => {
    await service.start();
    await stopped(chosen());
    expect(watched.statuses.at(-1)?.model?.path).toBe(builtInModel);
    expect((await ask()).answer).toContain('17');
  });

  it('leaves none where there was none, and the next question opens the one that it would have', async () => {
    await stopped(chosen());
    expect(watched.statuses.at(-1)?.model).toBeUndefined();
    expect((await ask()).answer).toContain('17');
    expect(watched.statuses.at(-1)?.model?.path).toBe(builtInModel);
  });
});

describe('what is in the prompt', () => {
  const contents = () => service.context(new AbortController().signal);

  it('leaves the status ready when it was the first to need the model', async () => {
    expect((await contents()).files).toHaveLength(2);
    expect(watched.statuses.at(-1)).toMatchObject({ phase: 'ready', health: 'ok', context: { files: 2 } });
  });

  it('is said to be nothing where there is nothing to read, until a file comes', async () => {
    const empty = mkdtempSync(path.join(tmpdir(), 'longview-empty-'));
    await service.change({ roots: [{ name: 'empty', folder: empty }] });
    await expect(contents()).rejects.toMatchObject({ code: 'empty_workspace' });
    const message = 'There is nothing to read in the folder empty: it is empty.';
    expect(watched.statuses.at(-1)).toMatchObject({ phase: 'ready', health: 'warning', message });
    writeFileSync(path.join(empty, 'config.py'), 'RETRY_LIMIT = 17\n');
    service.filesChanged();
    // Which has the editor ask again.
    expect(watched.statuses.at(-1)).toMatchObject({ phase: 'ready', health: 'ok', context: undefined });
    expect((await contents()).files).toHaveLength(1);
    expect(watched.statuses.at(-1)).toMatchObject({ phase: 'ready', health: 'ok', context: { files: 1 } });
    // So it is where the settings leave all of it out.
    await service.change({ settings: { ...settings, exclude: ['*.py'] } });
    await expect(contents()).rejects.toMatchObject({ code: 'empty_workspace' });
    expect(watched.statuses.at(-1)).toMatchObject({ health: 'warning', context: undefined });
    await service.change({ settings });
    await contents();
    expect(watched.statuses.at(-1)).toMatchObject({ health: 'ok', context: { files: 1 } });
    // And where the folder is gone.
    rmSync(empty, { recursive: true });
    await expect(contents()).rejects.toMatchObject({ code: 'no_workspace' });
    expect(watched.statuses.at(-1)).toMatchObject({ health: 'warning', context: undefined });
  });

  it('is said to be gone as long as it is', async () => {
    const folder = mkdtempSync(path.join(tmpdir(), 'longview-gone-'));
    const write = () => writeFolder(folder, [['config.py', 'RETRY_LIMIT = 17\n']]);
    write();
    await service.change({ roots: [{ name: 'app', folder }] });
    await ask();
    const status = () => watched.statuses.at(-1);
    const gone = [
      [() => rmSync(path.join(folder, 'config.py')), /nothing to read/],
      [() => rmSync(folder, { recursive: true }), /There is no folder/],
    ] as const;
    for (const [remove, message] of gone) {
      remove();
      service.filesChanged();
      await vi.waitFor(() => expect(status()?.health).toBe('warning'), { timeout: 60_000 });
      expect(status()?.message).toMatch(message);
      write();
      service.filesChanged();
      await vi.waitFor(() => expect(status()?.health).toBe('ok'), { timeout: 60_000 });
      expect(status()).toMatchObject({ phase: 'ready', freshness: { state: 'current' } });
      expect(status()?.message).not.toMatch(message);
    }
  });

  it('says that a model does not load, instead of that it is loading', async () => {
    const broken = path.join(mkdtempSync(path.join(tmpdir(), 'longview-broken-')), 'broken.gguf');
    writeFileSync(broken, readFileSync(builtInModel).subarray(0, 1000));
    await service.change({ settings: { ...settings, modelPath: broken } });
    await expect(contents()).rejects.toThrow(broken);
    expect(watched.statuses.at(-1)).toMatchObject({ phase: 'failed', health: 'error' });
  });

  it('says that the settings name a model that is not there, before anyone asks', async () => {
    await service.change({ settings });
    await contents();
    await service.change({ settings: { ...settings, modelPath: '/nowhere/none.gguf' } });
    await expect(contents()).rejects.toMatchObject({ code: 'no_model' });
    const message = expect.stringMatching(/There is no model at .*none\.gguf/) as string;
    expect(watched.statuses.at(-1)).toMatchObject({ phase: 'failed', health: 'error', message });
  });
});
