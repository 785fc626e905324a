/** What of a text is measured: contexts that are short are read densely anyway, and say little of how heads look far back. */
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { openNativeEngine } from '../../../server/engine/nativeEngine';
import { calibrate } from '../../../server/models/calibrate';
import { openModel, type OpenModel } from '../../../server/models/openModel';
import { calibrationText } from '../../../server/prompt/calibrationText';
import type { ScanOptions } from '../../../server/workspace/scan';
import { writeTinyModel } from '../../eval/tinyModel';
import { builtInModel, writeFolder } from '../reference';

it('calibrates on the later half of the text', async () => {
  const folder = mkdtempSync(path.join(tmpdir(), 'longview-calibrate-'));
  const builtIn = await openModel(builtInModel, { device: 'cpu' });
  const tiny = path.join(folder, 'tiny');
  writeTinyModel(tiny, { vocabulary: builtIn.engine.model.vocabularySize, window: 16384 });
  const engine = await openNativeEngine(tiny, { device: 'cpu', prefill: { mode: 'adaptive' } });
  const model = { ...builtIn, engine };
  try {
    const name = 'parts.py';
    const file = path.join(folder, name);
    const source = Array.from(
      { length: 600 },
      (_, i) => `def part_${i}(cells):\n    return cells[${i}:]\n`,
    ).join('\n');
    writeFileSync(file, source);
    const tokens = 8000;
    const text = calibrationText(model, { name, files: [{ path: name, text: source }] }, tokens);
    expect(text.length).toBe(tokens);

    // Where the profile cannot be written, what was measured stays: its part file names the text and where measuring began.
    const base = path.join(folder, `${engine.model.fingerprint}.cpu`);
    mkdirSync(`${base}.fast.profile.json`);
    const measured = async (calibrated: Promise<unknown>) => {
      await expect(calibrated).rejects.toMatchObject({ code: 'cannot_write' });
      const part = readFileSync(`${base}.part`);
      rmSync(`${base}.part`);
      return { identity: part.readBigUInt64LE(8), rows: Number(part.readBigInt64LE(32)) };
    };
    const options = { folder, targets: ['fast'] as const };
    const whole = await measured(calibrate(model, { ...options, source: { file }, tokens }));
    expect(whole.rows).toBeGreaterThan(0);
    const from = (fromToken: number) => measured(engine.calibrate(text, { ...options, fromToken }));
    expect(whole).toEqual(await from(tokens / 2));
    expect((await from(0)).rows).toBeGreaterThan(whole.rows);
  } finally {
    await engine.dispose();
    await builtIn.dispose();
    rmSync(folder, { recursive: true });
  }
});

describe('with a model that is read in no time', () => {
  const folder = mkdtempSync(path.join(tmpdir(), 'longview-calibrate-'));
  const parts = (from: number, count: number) =>
    Array.from({ length: count }, (_, i) => `def part_${from + i}(cells):\n    return cells[${i}:]\n`).join(
      '\n',
    );
  writeFolder(folder, [
    ['long.py', parts(0, 4000)],
    ...Array.from({ length: 8 }, (_, i): [string, string] => [`app/part_${i}.py`, parts(50 * i, 50)]),
    ['empty/none.py', ''],
    ['bare/none.py', ''],
  ]);
  const root = (name: string) => ({ name, folder: path.join(folder, name) });
  let builtIn: OpenModel;
  beforeAll(async () => {
    builtIn = await openModel(builtInModel, { device: 'cpu' });
  });
  afterAll(async () => {
    await builtIn.dispose();
    rmSync(folder, { recursive: true });
  });

  const withWindow = async (window: number, work: (model: OpenModel) => Promise<void>) => {
    const tiny = path.join(mkdtempSync(path.join(folder, 'tiny-')), 'model');
    writeTinyModel(tiny, { vocabulary: builtIn.engine.model.vocabularySize, window });
    const engine = await openNativeEngine(tiny, { device: 'cpu', prefill: { mode: 'adaptive' } });
    await work({ ...builtIn, engine }).finally(() => engine.dispose());
  };

  it.each([
    [40_000, undefined, 32_768],
    [40_000, 5_000, 5_000],
    [16_384, undefined, 16_384],
    [16_384, 20_000, 16_384],
  ])('of a window of %i and %s tokens that are asked for takes %i', (window, tokens, taken) =>
    withWindow(window, async (model) => {
      const stop = new AbortController();
      const totals = new Set<number>();
      const calibrating = calibrate(model, {
        source: { file: path.join(folder, 'long.py') },
        folder,
        tokens,
        signal: stop.signal,
        onProgress: ({ total }) => {
          totals.add(total);
          stop.abort();
        },
      });
      await expect(calibrating).rejects.toMatchObject({ code: 'cancelled' });
      expect([...totals]).toEqual([taken]);
    }),
  );

  it('makes a profile for every target, of the density that is asked for, from the files that are in', () =>
    withWindow(8192, async (model) => {
      const calibrated = (roots: { name: string; folder: string }[], scan?: ScanOptions) =>
        calibrate(model, { source: { roots, scan }, folder, tokens: 6000, density: 0.2 });
      const profiles = await calibrated([root('app')]);
      expect(profiles.map(({ target }) => target)).toEqual(['balanced', 'fast', 'minference']);
      // MInference's patterns visit more than that at the least.
      for (const { density } of profiles.slice(0, 2)) expect(density).toBeLessThanOrEqual(0.2);
      await expect(calibrated([root('app')], { exclude: ['*.py'] })).rejects.toThrow('8 excluded');
      await expect(calibrated([root('empty'), root('bare')])).rejects.toThrow('in the folder empty + bare: ');
    }));
});
