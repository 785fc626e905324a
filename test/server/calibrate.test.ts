/** The calibration of the command palette, by the service itself: real files, the built-in model, stopped and gone on with. */
import { mkdtempSync, readdirSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, expect, it } from 'vitest';
import type { Settings } from '../../server/protocol';
import { plainSettings } from '../eval/settings';
import { writeFolder } from './reference';
import { WatchedService } from './watchedService';

const folder = mkdtempSync(path.join(tmpdir(), 'longview-calibrate-'));
const modelsFolder = path.join(folder, 'models');
const repository = path.join(folder, 'tables');
const file = (i: number) =>
  Array.from({ length: 70 }, (_, j) => `def part_${i}_${j}(cells):\n    return cells[${j}:]\n`).join('\n');
writeFolder(
  repository,
  [0, 1].map((i) => [`src/part_${i}.py`, file(i)]),
);

const settings: Settings = {
  ...plainSettings,
  prefillTarget: 'fast',
  maxAnswerTokens: 64,
  cacheMaxGiB: 0,
};
const watched = new WatchedService(settings, 'tables', repository, modelsFolder);
const { service, statuses } = watched;
afterAll(() => service.dispose());

it('measures the heads on the workspace, stopped and gone on with, and answers afterwards', async () => {
  const stop = new AbortController();
  // The first half of the text is only read.
  watched.onStatus = ({ message, prefill }) => {
    if (message.startsWith('Calibrating') && prefill && prefill.done >= 0.7 * prefill.total) stop.abort();
  };
  await expect(service.calibrate(stop.signal)).rejects.toMatchObject({ code: 'cancelled' });
  expect(readdirSync(path.join(modelsFolder, 'profiles'))).toEqual([expect.stringMatching(/\.cpu\.part$/)]);
  expect(statuses.at(-1)).toMatchObject({ health: 'ok', phase: 'ready' });

  watched.onStatus = () => undefined;
  const { density, uncalibratedDensity } = await service.calibrate(new AbortController().signal);
  expect(density).toBeGreaterThan(0);
  expect(density).toBeLessThanOrEqual(uncalibratedDensity);
  expect(readdirSync(path.join(modelsFolder, 'profiles'))).toEqual([
    expect.stringMatching(/\.cpu\.fast\.profile\.json$/),
  ]);
  const reading = statuses.filter(({ message }) => message.startsWith('Calibrating'));
  expect(reading.at(-1)?.prefill).toMatchObject({ etaSeconds: 0 });
  expect(statuses.at(-1)).toMatchObject({ health: 'ok', phase: 'ready' });
  const { answer } = await service.ask(
    { question: 'Where is `part_1_3` defined?' },
    () => undefined,
    new AbortController().signal,
  );
  expect(answer).toContain('part_1');
}, 120_000);

it('says why there is nothing to calibrate', async () => {
  await service.change({ settings: { ...settings, prefillTarget: 'exact' } });
  await expect(service.calibrate(new AbortController().signal)).rejects.toThrow(/read densely here/);
  await service.change({ settings, roots: [{ name: 'src', folder: path.join(repository, 'none') }] });
  await expect(service.calibrate(new AbortController().signal)).rejects.toMatchObject({
    code: expect.stringMatching(/empty_workspace|no_workspace/) as string,
  });
}, 60_000);
