/** Calibration as a job of the addon, on a small model: stopped, gone on with, found again, and what is said of bad profiles. */
import { mkdtempSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { expect, it } from 'vitest';
import type { CalibrateOptions, Engine, EngineOptions } from '../../../server/engine/engine';
import { openNativeEngine } from '../../../server/engine/nativeEngine';
import { tinyVocabulary, writeTinyModel } from '../../eval/tinyModel';
import { root } from '../reference';

const model = path.join(root, 'test/fixtures/native/llama.Q8_0.gguf');
const mkdir = () => mkdtempSync(path.join(tmpdir(), 'longview-calibrate-'));

async function withEngine<T>(
  prefill: EngineOptions['prefill'],
  work: (engine: Engine) => Promise<T>,
): Promise<T> {
  const engine = await openNativeEngine(model, { device: 'cpu', prefill });
  try {
    return await work(engine);
  } finally {
    await engine.dispose();
  }
}

const text = (engine: Engine) =>
  Int32Array.from({ length: 4096 }, (_, i) => (i * 7919 + (i >> 5)) % engine.model.vocabularySize);
const run = (options: Partial<CalibrateOptions> & { folder: string }) =>
  withEngine({ mode: 'adaptive' }, (engine) =>
    engine.calibrate(text(engine), { targets: ['balanced', 'fast'], density: 0.5, ...options }),
  );

it('writes a profile for each target, and goes on where it was stopped', async () => {
  const folder = path.join(mkdir(), 'profiles');
  const stop = new AbortController();
  const seen: number[] = [];
  const stopped = run({
    folder,
    signal: stop.signal,
    onProgress: ({ done, total }) => {
      expect(total).toBe(4096);
      seen.push(done);
      if (done >= 1024) stop.abort();
    },
  });
  await expect(stopped).rejects.toMatchObject({ code: 'cancelled' });
  expect(seen.at(-1)).toBeLessThan(4096);
  expect(readdirSync(folder)).toEqual([expect.stringMatching(/^[0-9a-f]{32}\.cpu\.part$/)]);

  const profiles = await run({ folder });
  expect(profiles.map(({ target }) => target)).toEqual(['balanced', 'fast']);
  expect(readdirSync(folder).sort()).toEqual(profiles.map((profile) => path.basename(profile.path)).sort());
  for (const { path: file, density, recall } of profiles) {
    expect(density).toBeLessThanOrEqual(0.5);
    expect(recall).toBeGreaterThan(0);
    expect(recall).toBeLessThanOrEqual(1);
    expect(JSON.parse(readFileSync(file, 'utf8'))).toMatchObject({ kernel_version: 2, device: 'cpu' });
  }
});

it('gives way to an answer', async () => {
  await withEngine({ mode: 'adaptive' }, async (engine) => {
    const context = await engine.createContext();
    let answered = 0;
    let done = 0;
    const calibrated = engine.calibrate(text(engine), {
      folder: mkdir(),
      targets: ['fast'],
      onProgress: (progress) => (done = progress.done),
    });
    await context.extend(text(engine).subarray(0, 64), { priority: 'answer' });
    await context.generate({ maxTokens: 4, stopTokens: [] }).then(() => (answered = done));
    await calibrated;
    expect(answered).toBeLessThan(4096);
    expect(done).toBe(4096);
  });
});

it('is found again by auto and adaptive, and what cannot be used is passed over with a sentence', async () => {
  const folder = mkdir();
  const [profile] = await run({ folder, targets: ['fast'] });
  const file = profile!.path;
  const read = (prefill: EngineOptions['prefill']) =>
    withEngine(prefill, async (engine) => {
      const context = await engine.createContext();
      const { density } = await context.extend(text(engine), { sparse: true });
      return { density: density!, note: engine.device.note };
    });
  const uncalibrated = await read({ mode: 'adaptive', target: 'fast' });
  const found = await read({ mode: 'adaptive', target: 'fast', profileFolders: ['/nowhere', folder] });
  expect(found.density).not.toBe(uncalibrated.density);
  expect(found.note).toBe(uncalibrated.note);
  expect(await read({ mode: 'adaptive', target: 'fast', profile: file })).toEqual(found);
  expect(await read({ mode: 'adaptive', target: 'balanced', profileFolders: [folder] })).toEqual(
    await read({ mode: 'adaptive', target: 'balanced' }),
  );

  const sound = readFileSync(file, 'utf8');
  const bad: [string, RegExp][] = [
    [sound.replace(/"model": "[0-9a-f]{4}/, '"model": "beef'), /made for another model/],
    [sound.replace('"pattern": "', '"pattern": "un'), /unknown pattern/],
    [sound.replace(/\[\n {2}\{[^}]*\},/, '[\n'), /number of heads/],
    [sound.slice(0, sound.length / 2), /not valid JSON/],
    ['[]', /number of layers/],
    ['\0'.repeat(1000), /not valid JSON/],
  ];
  for (const [content, sentence] of bad) {
    writeFileSync(file, content);
    const passedOver = await read({ mode: 'adaptive', target: 'fast', profileFolders: [folder] });
    expect(passedOver.density).toBe(uncalibrated.density);
    expect(passedOver.note).toMatch(sentence);
    await expect(read({ mode: 'adaptive', target: 'fast', profile: file })).rejects.toThrow(sentence);
  }
});

it('gives no profile of a model whose attention is not finite', async () => {
  const folder = mkdir();
  const embedding = Float32Array.from({ length: 32 * tinyVocabulary }, (_, i) => Math.sin(i));
  embedding.fill(NaN, 5 * 32, 6 * 32);
  const poisoned = path.join(folder, 'model');
  writeTinyModel(poisoned, { embedding, window: 4096 });
  const engine = await openNativeEngine(poisoned, { device: 'cpu', prefill: { mode: 'adaptive' } });
  try {
    const profiles = path.join(folder, 'profiles');
    await expect(
      engine.calibrate(text(engine), { folder: profiles, targets: ['fast', 'minference'] }),
    ).rejects.toMatchObject({
      code: 'invalid_argument',
      message: expect.stringMatching(/in layer 0 is not finite/) as string,
    });
    expect(readdirSync(profiles).filter((name) => name.endsWith('.json'))).toEqual([]);
  } finally {
    await engine.dispose();
  }
});

it('says what cannot be calibrated', async () => {
  const folder = mkdir();
  await withEngine({ mode: 'dense' }, async (engine) => {
    await expect(engine.calibrate(text(engine), { folder, targets: ['fast'] })).rejects.toThrow(
      /nothing to calibrate/,
    );
  });
  await expect(run({ folder, fromToken: 4096 })).rejects.toThrow(/Give a longer text/);
  writeFileSync(path.join(folder, 'file'), '');
  await expect(run({ folder: path.join(folder, 'file') })).rejects.toMatchObject({ code: 'cannot_write' });
});
