/** Kinds and names as the system means them, whatever a list of it says. */
import { symlinkSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { expect, it } from 'vitest';
import { kindOf } from '../../../server/workspace/listFolder';
import { scanFolder } from '../../../server/workspace/scan';
import { onPlatform } from '../platform/onPlatform';
import { repository } from './repository';

it('looks at what is listed as a link: a file that is kept elsewhere is none', async () => {
  const folder = repository([
    ['a.ts', 'x'],
    ['src/b.ts', 'x'],
  ]);
  symlinkSync('a.ts', path.join(folder, 'link'));
  const listed = (name: string) => ({
    name,
    isSymbolicLink: () => true,
    isFile: () => false,
    isDirectory: () => false,
  });
  expect((await kindOf(listed('a.ts'), folder)).isFile()).toBe(true);
  expect((await kindOf(listed('src'), folder)).isDirectory()).toBe(true);
  for (const name of ['link', 'gone'])
    expect((await kindOf(listed(name), folder)).isSymbolicLink()).toBe(true);
});

it('names files on macOS as they are typed, which opens them there', async () => {
  const [typed, listed] = ['caf\u00e9.ts', 'cafe\u0301.ts'];
  const folder = repository([[listed, 'x']]);
  expect((await scanFolder(folder)).files.map((file) => file.path)).toEqual([listed]);
  // Here it takes two files for what is one there.
  writeFileSync(path.join(folder, typed), 'x');
  const { files } = await onPlatform('darwin', () => scanFolder(folder, { include: [typed] }));
  expect(new Set(files.map((file) => file.path))).toEqual(new Set([typed]));
  expect(new Set(files.map((file) => file.absolutePath))).toEqual(new Set([path.join(folder, typed)]));
});
