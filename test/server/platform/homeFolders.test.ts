/** What is kept lies where people of each system look for it. */
import { homedir } from 'node:os';
import path from 'node:path';
import { afterEach, expect, it, vi } from 'vitest';
import { cacheFolder, dataFolder } from '../../../server/platform/homeFolders';
import { onPlatform } from './onPlatform';

afterEach(() => void vi.unstubAllEnvs());

const home = (...names: string[]) => path.join(homedir(), ...names);

it.each([
  ['linux', home('.cache/longview'), home('.local/share/longview')],
  ['darwin', home('Library/Caches/longview'), home('Library/Application Support/longview')],
  ['win32', '/local/longview', '/local/longview'],
] as const)('is %s custom: %s, %s', async (platform, cache, data) => {
  vi.stubEnv('XDG_CACHE_HOME', '');
  vi.stubEnv('XDG_DATA_HOME', '');
  vi.stubEnv('LOCALAPPDATA', '/local');
  expect(await onPlatform(platform, () => [cacheFolder(), dataFolder()])).toEqual([cache, data]);
  vi.stubEnv('XDG_CACHE_HOME', '/xdg');
  vi.stubEnv('XDG_DATA_HOME', '/data');
  expect(await onPlatform(platform, () => [cacheFolder(), dataFolder()])).toEqual([
    '/xdg/longview',
    '/data/longview',
  ]);
});

it('is in the home folder on Windows where no variable names the place', async () => {
  vi.stubEnv('XDG_CACHE_HOME', '');
  vi.stubEnv('LOCALAPPDATA', undefined);
  expect(await onPlatform('win32', cacheFolder)).toBe(home('AppData/Local/longview'));
});
