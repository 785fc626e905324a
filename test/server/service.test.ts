/** The backend without its wire: what a question does when its model or its settings change under it. */
import { mkdtempSync, readFileSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { AskProgress, Settings } from '../../server/protocol';
import type { Service } from '../../server/service';
import { plainSettings } from '../eval/settings';
import { builtInModel, writeFolder } from './reference';
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

  it('has sources as long as its session is open', async () => {
    const { signal } = new AbortController();
    expect(await service.sources('none yet', signal)).toEqual({});
    const { conversationId } = await ask();
    const { sources } = await service.sources(conversationId, signal);
    expect(sources?.[0]).toMatchObject({ path: 'config.py', span: { startLine: 1, endLine: 1 } });
    await service.change({ settings: { ...settings, exclude: ['lib/'] } });
    expect(await service.sources(conversationId, signal)).toEqual({});
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
