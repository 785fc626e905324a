/** What a service does about work that fails: what the status says, and whether the server is to be started again. */
import { existsSync } from 'node:fs';
import path from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { LongviewError, type ErrorCode } from '../../server/errors';
import { Opened } from '../../server/opened';
import type { Status } from '../../server/protocol';
import { plainSettings } from '../eval/settings';
import { root } from './reference';

let opened: Opened;
let statuses: Status[];
let lost: number;

beforeEach(() => {
  statuses = [];
  lost = 0;
  opened = new Opened({
    settings: plainSettings,
    roots: [],
    modelsFolder: root,
    extensionFolder: root,
    trusted: true,
    onStatus: (status) => statuses.push(status),
    onDeviceLost: () => lost++,
  });
});
afterEach(() => opened.model?.open.dispose());

const fail = (code: ErrorCode) =>
  expect(
    opened.showing(() => Promise.reject(new LongviewError(code, `It failed: ${code}.`))),
  ).rejects.toMatchObject({ code });

const shows = (phase: Status['phase'], health: Status['health'], message: string) =>
  expect(statuses.at(-1)).toMatchObject({ phase, health, message });

it.skipIf(existsSync(path.join(root, 'dist/longview_cuda.so')))(
  'says how to go on where a GPU is asked for that is not there',
  async () => {
    opened.settings = { ...plainSettings, device: 'cuda' };
    const go = /no GPU code .* Choose the device auto or cpu/;
    await expect(opened.start()).rejects.toThrow(go);
    expect(statuses.at(-1)).toMatchObject({ phase: 'failed', health: 'error' });
    expect(statuses.at(-1)!.message).toMatch(go);
  },
);

it.each([
  ['device', 'CPU', 'longview.device to auto, cuda or cpu'],
  ['gpuWeights', 'int4', 'longview.gpu.weights to auto or fp8'],
  ['cacheFormat', 'q3', 'longview.cache.format to auto, bf16, q8, q4 or fp8'],
  ['prefillMode', 'sparse', 'longview.prefill.mode to auto, adaptive, minference or dense'],
  ['prefillTarget', 'best', 'longview.prefill.target to fast, balanced or exact'],
])('says what %s may be where it is %s', async (setting, value, sentence) => {
  opened.settings = { ...plainSettings, [setting]: value };
  await expect(opened.start()).rejects.toThrow(`called "${value}". Set ${sentence}.`);
  expect(statuses.at(-1)).toMatchObject({ phase: 'failed', health: 'error' });
});

it('says how many times a window may be stretched', async () => {
  opened.settings = { ...plainSettings, windowStretch: 3 };
  await expect(opened.start()).rejects.toThrow('Set longview.window.stretch to 1, 2 or 4.');
});

it('says that the window stays of a model whose makers do not recommend another', async () => {
  opened.settings = { ...plainSettings, windowStretch: 4 };
  await opened.start();
  expect(statuses.at(-1)).toMatchObject({ phase: 'ready', model: { window: 65536 } });
  expect(statuses.at(-1)!.device).toMatch(/window is not stretched/);
});

describe('work that fails', () => {
  it('has the server started again where the GPU was lost, and says why', async () => {
    await opened.start();
    await fail('device_lost');
    expect(lost).toBe(1);
    shows('ready', 'warning', 'It failed: device_lost.');
  });

  it('leaves the server as it is otherwise', async () => {
    await opened.start();
    await fail('out_of_memory');
    shows('ready', 'warning', 'It failed: out_of_memory.');
    await fail('cancelled');
    expect(statuses.at(-1)).toMatchObject({ phase: 'ready', health: 'ok' });
    expect(lost).toBe(0);
  });

  it('is a failure of all where there is no model', async () => {
    await fail('device_lost');
    expect(lost).toBe(1);
    shows('failed', 'error', 'It failed: device_lost.');
  });
});
