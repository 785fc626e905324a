/** What of a text is measured: contexts that are short are read densely anyway, and say little of how heads look far back. */
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { expect, it } from 'vitest';
import { openNativeEngine } from '../../../server/engine/nativeEngine';
import { calibrate } from '../../../server/models/calibrate';
import { openModel } from '../../../server/models/openModel';
import { calibrationText } from '../../../server/prompt/calibrationText';
import { writeTinyModel } from '../../eval/tinyModel';
import { builtInModel } from '../reference';

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
