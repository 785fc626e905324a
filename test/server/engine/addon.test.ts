/** The addon's own object: one engine at a time, and nothing is read of one that is gone. */
import { execFile } from 'node:child_process';
import { once } from 'node:events';
import { readdirSync } from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';
import { promisify } from 'node:util';
import { Worker } from 'node:worker_threads';
import { expect, it } from 'vitest';
import { openNativeEngine } from '../../../server/engine/nativeEngine';
import { builtInModel, root } from '../reference';

interface AddonEngine {
  open(
    path: string,
    options: object,
    onLoad: () => void,
    job?: number,
  ): Promise<{ model: { layers: number } }>;
  create(context: number): Promise<void>;
  extend(
    context: number,
    tokens: Int32Array,
    priority: number,
    job: number,
    onProgress: () => void,
    sparse: boolean,
  ): Promise<object>;
  cancel(job: number): void;
  close(): Promise<void>;
}

const { Engine } = createRequire(__filename)(process.env.LONGVIEW_ADDON!) as {
  Engine: new () => AddonEngine;
};
const nothing = () => undefined;
const open = (engine: AddonEngine, job?: number) =>
  engine.open(
    path.join(root, 'test/fixtures/native/llama.Q8_0.gguf'),
    { device: 'cpu', threads: 1 },
    nothing,
    job,
  );

it('stops opening a model, which can be opened again', async () => {
  const engine = new Engine();
  const opened = open(engine, 0);
  engine.cancel(0);
  await expect(opened).rejects.toMatchObject({ code: 'cancelled' });
  expect((await open(engine)).model.layers).toBe(2);
  await engine.close();
});

it('tells of a model that is closed before it is told of', async () => {
  const engine = new Engine();
  const opened = open(engine);
  const closed = engine.close();
  // Longer than both take on the engine's thread, while this one cannot look at what is settled.
  for (const start = Date.now(); Date.now() - start < 500;);
  expect((await opened).model.layers).toBe(2);
  await closed;
});

it('refuses to open twice, and goes on with what is open; closed, it opens again', async () => {
  const engine = new Engine();
  await open(engine);
  await engine.create(1);
  await expect(open(engine)).rejects.toMatchObject({ code: 'invalid_argument' });
  expect(await engine.extend(1, Int32Array.of(1, 2, 3), 1, 1, nothing, false)).toEqual({ reused: 0 });
  await engine.close();
  await open(engine);
  await engine.close();
});

it('closed, says of what waits that it was stopped', async () => {
  const engine = new Engine();
  const opened = open(engine);
  const created = engine.create(1);
  const reading = engine.extend(1, Int32Array.of(1, 2, 3), 1, 1, nothing, false);
  const stopped = expect(reading).rejects.toMatchObject({ code: 'cancelled' });
  await Promise.all([opened, created, engine.close(), stopped]);
});

const threads = () => readdirSync('/proc/self/task').length;

it('that could not be opened keeps no thread either', async () => {
  const missing = () =>
    expect(openNativeEngine('/no/such/model.gguf')).rejects.toMatchObject({ code: 'file_not_found' });
  await missing();
  const before = threads();
  for (let i = 0; i < 20; i++) await missing();
  await expect.poll(threads).toBeLessThan(before + 5);
});

it('closed, keeps no thread, whatever is still held of it', async () => {
  const opened = async () => {
    const engine = new Engine();
    await open(engine);
    await engine.close();
    return engine;
  };
  const engines = [await opened()];
  const before = threads();
  while (engines.length < 20) engines.push(await opened());
  await expect.poll(threads).toBeLessThan(before + 5);
  // One that is opened again has its thread again.
  await open(engines[0]!);
  await engines[0]!.create(1);
  expect(await engines[0]!.extend(1, Int32Array.of(1, 2, 3), 1, 1, nothing, false)).toEqual({ reused: 0 });
  await engines[0]!.close();
});

it('stops what it reads when the worker that it belongs to is terminated', async () => {
  const worker = new Worker(
    `
    const { parentPort, workerData: { addon, model } } = require('node:worker_threads');
    const { Engine } = require(addon);
    (async () => {
      const engine = new Engine();
      await engine.open(model, { device: 'cpu', threads: 1 }, () => undefined);
      await engine.create(1);
      const start = performance.now();
      const told = () => parentPort.postMessage(performance.now() - start);
      await engine.extend(1, Int32Array.from({ length: 16384 }, (_, i) => 100 + ((i * 7919) % 20000)), 1, 1, told, false);
    })();
    `,
    {
      eval: true,
      workerData: { addon: process.env.LONGVIEW_ADDON, model: builtInModel },
    },
  );
  const [chunk] = (await once(worker, 'message')) as [number];
  const start = performance.now();
  await worker.terminate();
  // Of 16 chunks, of which later ones take longer.
  expect((performance.now() - start) / chunk).toBeLessThan(5);
});

it('lets the process end when it refused a call before it began', async () => {
  const script = `
    const { Engine } = require(${JSON.stringify(process.env.LONGVIEW_ADDON)});
    const engine = new Engine(), nothing = () => undefined;
    const refused = [
      () => engine.extend(1, [1, 2], 1, 1, nothing, false),
      () => engine.score(1, [1, 2], 1, 2, nothing),
      () => engine.generate(1, {}, 'soon', 3, nothing),
    ];
    for (const call of refused) try { call(); } catch (error) { console.log(error.name); }
  `;
  const { stdout } = await promisify(execFile)(process.execPath, ['-e', script]);
  expect(stdout).toBe('TypeError\n'.repeat(3));
});
