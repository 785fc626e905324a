/** One file has many spellings, and not the same ones on every system. */
import { mkdirSync, mkdtempSync, symlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import { asOnDisk, globWithSlashes, nameKey, wayDown, withSlashes } from '../../../server/platform/fileNames';
import { onPlatform } from './onPlatform';

describe('names of files', () => {
  it('are one on Windows with any case and with either slash', async () => {
    const [drive, other] = ['C:\\Proj\\Src\\App.ts', 'c:/proj/src/app.TS'];
    await onPlatform('win32', () => {
      expect(nameKey(drive)).toBe(nameKey(other));
      expect(nameKey('\\\\NAS\\share\\a')).toBe(nameKey('//nas/share/a'));
      expect(withSlashes('src\\app.ts')).toBe('src/app.ts');
    });
    expect(nameKey('src\\app.ts')).toBe('src\\app.ts');
    expect(nameKey('Src/App.ts')).not.toBe(nameKey('src/app.ts'));
  });

  it('are one on macOS with any case and with accents of their own', async () => {
    const [typed, listed] = ['Café/Über.ts', 'cafe\u0301/u\u0308ber.ts'];
    expect(await onPlatform('darwin', () => nameKey(typed) === nameKey(listed))).toBe(true);
    expect(nameKey('\u00e9')).not.toBe(nameKey('e\u0301'));
    expect(await onPlatform('darwin', () => nameKey('a\\b'))).toBe('a\\b');
  });

  it('lead down from a folder, on Windows from one disk to another not at all', async () => {
    await onPlatform('win32', () => {
      expect(wayDown('C:\\proj', 'c:\\Proj\\src\\core')).toBe('src/core');
      expect(wayDown('c:/proj', 'c:/proj')).toBe('');
      expect(wayDown('C:\\proj', 'C:\\proj-2')).toBeUndefined();
      expect(wayDown('C:\\proj', 'D:\\proj\\src')).toBeUndefined();
      expect(wayDown('\\\\nas\\share', '\\\\nas\\share\\src')).toBe('src');
      expect(wayDown('\\\\nas\\share', '\\\\nas\\other\\src')).toBeUndefined();
    });
    expect(wayDown('/proj', '/proj/..src')).toBe('..src');
    expect(wayDown('/proj', '/projects')).toBeUndefined();
  });

  it('are spelled as the disk does where a folder was typed otherwise', async () => {
    const parent = mkdtempSync(path.join(tmpdir(), 'longview-names-'));
    const folder = path.join(parent, 'Project');
    mkdirSync(folder);
    // What a system that ignores the case does by itself.
    symlinkSync(folder, path.join(parent, 'PROJECT'));
    symlinkSync(folder, path.join(parent, 'link'));
    expect(asOnDisk(path.join(parent, 'PROJECT'))).toBe(path.join(parent, 'PROJECT'));
    await onPlatform('darwin', () => {
      expect(asOnDisk(path.join(parent, 'PROJECT'))).toBe(folder);
      expect(asOnDisk(path.join(parent, 'link'))).toBe(path.join(parent, 'link'));
      expect(asOnDisk(path.join(parent, 'gone'))).toBe(path.join(parent, 'gone'));
    });
  });

  it('may have backslashes in a glob on Windows, where they need not escape what no name has', async () => {
    const globs = ['src\\generated\\', 'app\\\\[slug\\]\\page.tsx', '\\#notes', '\\!a', '**\\*.log', 'a\\ '];
    expect(globs.map(globWithSlashes)).toEqual(globs);
    expect(await onPlatform('win32', () => globs.map(globWithSlashes))).toEqual([
      'src/generated/',
      'app/\\[slug\\]/page.tsx',
      '\\#notes',
      '\\!a',
      '**/*.log',
      'a\\ ',
    ]);
  });
});
