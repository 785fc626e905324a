/** The saving of a state: what is said when it fails and when it does not any more, and how it ends when it is given no time. */
import {
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { rootOf } from '../../../server/answers/session';
import { WorkspaceCache } from '../../../server/cache/workspaceCache';
import type { Context } from '../../../server/engine/engine';
import { openModel, type OpenModel } from '../../../server/models/openModel';
import type { Root } from '../../../server/workspace/scan';
import { onPlatform } from '../platform/onPlatform';
import { builtInModel } from '../reference';
import { noFiles } from './packing';

const parent = mkdtempSync(path.join(tmpdir(), 'longview-saving-'));
const tokens = 1024;
const packing = { ...noFiles, base: new Int32Array(tokens).fill(1000) };
let model: OpenModel;
let context: Context;

beforeAll(async () => {
  model = await openModel(builtInModel);
  context = await model.engine.createContext();
  await context.extend(packing.base);
});
afterAll(async () => {
  await model.dispose();
  rmSync(parent, { recursive: true });
});

const cacheIn = (name: string) =>
  new WorkspaceCache(model.engine, [], { root: path.join(parent, name), maxBytes: 1e9 });

it('is said to have failed until it succeeds', async () => {
  const place = path.join(parent, 'failing');
  writeFileSync(place, '');
  const cache = cacheIn('failing');
  cache.save(context, packing);
  const note = expect.stringMatching(/^What was read could not be saved\. ./) as string;
  await expect.poll(() => cache.saved, { timeout: 30_000 }).toMatchObject({ note, failed: true });
  rmSync(place);
  cache.save(context, packing);
  await expect.poll(() => cache.saved, { timeout: 30_000 }).toEqual({ tokens, total: tokens });
  await cache.finish();
});

it.each([
  ['before', 2000],
  ['while', 3000],
])('ends at once where its time is over %s it is waited for', async (when, token) => {
  const cache = cacheIn(when);
  // An answer goes before: the saving waits. Tokens of its own are not there already.
  const other = await model.engine.createContext();
  const reading = other.extend(new Int32Array(tokens).fill(token), { priority: 'answer' });
  cache.save(context, packing);
  const stop = new AbortController();
  if (when === 'before') stop.abort();
  const finished = cache.finish(stop.signal);
  stop.abort();
  await finished;
  // What is written by then is kept.
  const { tokens: kept = 0, note } = cache.saved;
  expect(kept).toBeLessThan(tokens);
  expect(note).toBeUndefined();
  // Nothing is begun any more.
  cache.save(context, packing);
  await cache.finish();
  expect(cache.saved.tokens ?? 0).toBe(kept);
  await reading;
  await other.dispose();
});

it('is waited for where there is time, and loaded with progress, or not when that is stopped', async () => {
  const cache = cacheIn('waited for');
  cache.save(context, packing);
  await cache.finish(new AbortController().signal);
  expect(cache.saved).toEqual({ tokens, total: tokens });
  const next = cacheIn('waited for');
  expect((await next.restore())?.base).toEqual(packing.base);
  await context.truncate(0);
  const stopped = next.load(context, packing.base, undefined, AbortSignal.abort());
  await expect(stopped).rejects.toMatchObject({ code: 'cancelled' });
  expect([context.length, next.saved.note]).toEqual([0, undefined]);
  const seen: number[] = [];
  expect(await next.load(context, packing.base, ({ done }) => seen.push(done))).toBe(tokens);
  expect(seen.at(-1)).toBe(tokens);
  expect(next.saved.note).toBeUndefined();
});

it('writes nothing again but what is damaged, and that once', async () => {
  const saved = async (by: WorkspaceCache) => {
    by.save(context, packing);
    await expect.poll(() => by.saved, { timeout: 30_000 }).toEqual({ tokens, total: tokens });
    const pages = readdirSync(by.folder).filter((name) => name.startsWith('pages-'));
    return pages.map((name) => [name, statSync(path.join(by.folder, name)).mtimeMs]);
  };
  const written = await saved(cacheIn('damaged'));
  expect(await saved(cacheIn('damaged'))).toEqual(written);

  const cache = cacheIn('damaged');
  const file = path.join(cache.folder, String(written[0]![0]));
  const bytes = readFileSync(file);
  for (let at = bytes.length >> 1; at < bytes.length; at += 4096) bytes[at]! ^= 1;
  writeFileSync(file, bytes);
  // What is in memory is not loaded.
  await context.truncate(0);
  expect(await cache.load(context, packing.base)).toBeLessThan(tokens);
  expect(cache.saved.note).toMatch(/damaged/);
  await context.truncate(0);
  expect(
    await cache.load(
      context,
      packing.base.map((id) => id + 1),
    ),
  ).toBe(0);
  await context.extend(packing.base);
  const mended = await saved(cache);
  expect(mended).not.toEqual(written);
  cache.save(context, packing);
  await cache.finish();
  expect(await saved(cacheIn('damaged'))).toEqual(mended);
  await context.truncate(0);
  expect(await cacheIn('damaged').load(context, packing.base)).toBe(tokens);
});

it('is found again however a folder is typed, where the system takes that for one', async () => {
  const folder = path.join(parent, 'Project');
  mkdirSync(folder);
  // What a system that ignores the case does by itself.
  symlinkSync(folder, path.join(parent, 'project'));
  const options = { root: parent, maxBytes: 1e9 };
  const placeOf = (...roots: Root[]) => new WorkspaceCache(model.engine, roots, options).folder;
  const typed = () => ['Project', 'project'].map((name) => rootOf(path.join(parent, name)));
  expect(new Set(typed().map((root) => placeOf(root))).size).toBe(2);
  await onPlatform('darwin', () => {
    expect(typed()).toEqual(new Array(2).fill({ name: 'Project', folder }));
  });
  // An editor writes the disk in small letters, a terminal does not.
  const disks = ['c:\\Project', 'C:\\Project'].map((folder) => ({ name: 'Project', folder }));
  await onPlatform('win32', () => expect(new Set(disks.map((root) => placeOf(root))).size).toBe(1));
});
