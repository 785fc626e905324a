/** Where head profiles are found: what was calibrated on this machine first, then what comes with the extension. */
import { mkdirSync, mkdtempSync, readdirSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { expect, it } from 'vitest';
import type { PrefillOptions } from '../../../server/engine/engine';
import { openNativeEngine } from '../../../server/engine/nativeEngine';
import { calibratedFolder, profileFolders } from '../../../server/models/profiles';
import { builtInModel, reference, root } from '../reference';

/** Long enough that there is something to leave out. */
const text = Int32Array.from(
  { length: 2560 },
  (_, i) => reference.packedTokens[i % reference.packedTokens.length]!,
);

async function read(prefill: PrefillOptions) {
  const engine = await openNativeEngine(builtInModel, { device: 'cpu', prefill });
  try {
    const context = await engine.createContext();
    const { density } = await context.extend(text, { sparse: true });
    return { density: density!, note: engine.device.note, ...engine.model };
  } finally {
    await engine.dispose();
  }
}

it('are found by the model, the device and the target', async () => {
  const folder = mkdtempSync(path.join(tmpdir(), 'longview-profiles-'));
  const [models, extension] = [path.join(folder, 'models'), path.join(folder, 'extension')];
  const prefill = {
    mode: 'adaptive',
    target: 'fast',
    profileFolders: profileFolders(models, extension),
  } as const;
  const without = await read(prefill);
  expect(without.density).toBeLessThan(1);

  const write = (to: string, head: object) => {
    const { fingerprint, layers } = without;
    const heads = Array.from({ length: layers }, () => Array.from({ length: 9 }, () => head));
    const format = { format: 'longview-head-profile', version: 1, model: fingerprint, kernel_version: 2 };
    mkdirSync(to, { recursive: true });
    writeFileSync(
      path.join(to, `${fingerprint}.cpu.fast.profile.json`),
      JSON.stringify({ ...format, device: 'cpu', layers: heads }),
    );
  };
  write(path.join(extension, 'media', 'model'), { pattern: 'dense' });
  expect((await read(prefill)).density).toBe(1);
  expect((await read({ ...prefill, target: 'balanced' })).density).toBeLessThan(1);
  const near = { pattern: 'adaptive', sink: 128, window: 256, rule: 'share', threshold: 2 };
  write(calibratedFolder(models), near);
  const { density, note } = await read(prefill);
  expect(density).toBeLessThan(without.density);
  expect(note).toBe(without.note);
});

const folder = path.join(root, 'media', 'model');
const shipped = readdirSync(folder).filter((name) => name.endsWith('.profile.json'));
it.each(shipped)('%s is of the built-in model', async (file) => {
  const [, fingerprint, device, target] = /^([0-9a-f]{32})\.(\w+)\.(fast|balanced)\.profile\.json$/.exec(
    file,
  )!;
  const given = await read({
    mode: 'adaptive',
    target: target as 'fast' | 'balanced',
    profile: path.join(folder, file),
  });
  expect({ fingerprint, device }).toEqual({ fingerprint: given.fingerprint, device: 'cpu' });
});
