/** Packing, and packing again after edits: what was packed keeps its place. */
import { randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import { readPacking, writePacking } from '../../../server/cache/packingFile';
import { nameKey } from '../../../server/platform/fileNames';
import { Packer } from '../../../server/prompt/pack';
import { lookingAgain, placesOf } from '../../../server/prompt/packing';
import { scanFolder } from '../../../server/workspace/scan';
import { repository } from '../workspace/repository';
import { edit, long, tokenizer } from './packed';

/** With 4 KiB of base64. */
const style = (name: string) =>
  `.${name} { src: url(data:font/woff2;base64,${randomBytes(3000).toString('base64')}); }\n`;

describe('Packer', () => {
  it.each([
    ['it is empty.', []],
    ['it is empty.', [['.git/HEAD', 'ref: refs/heads/main\n']] as [string, string][]],
    [
      'all that is in it is left out (2 empty, 1 secret).',
      [
        ['.env', 'A=1\n'],
        ['a.py', ''],
        ['b.py', ''],
      ] as [string, string][],
    ],
  ])('says why there is nothing to read: %s', async (why, files) => {
    const packer = new Packer({ name: 'r', tokenizer, budget: 60_000 });
    const packed = scanFolder(repository(files)).then((scan) => packer.pack(scan));
    await expect(packed).rejects.toMatchObject({
      code: 'empty_workspace',
      message: `There is nothing to read in the folder r: ${why}`,
    });
  });

  it('appends edits as later versions, and keeps the tokens before them', async () => {
    const folder = repository([
      ['a.py', 'OLD = 1\n'],
      ['b.py', 'LIMIT = 1\n'],
      ['c.py', long('c')],
    ]);
    const packer = new Packer({ name: 'r', tokenizer, budget: 60_000 });
    const first = await packer.pack(await scanFolder(folder));
    edit(folder, 'b.py', 'LIMIT = 1\n');
    const same = await packer.pack(await scanFolder(folder));
    expect(same.tokens).toEqual(first.tokens);

    edit(folder, 'b.py', 'LIMIT = 2\n');
    edit(folder, 'd.py', 'NEW = 1\n');
    rmSync(path.join(folder, 'a.py'));
    const second = await packer.pack(await scanFolder(folder));
    const text = tokenizer.decode(second.tokens);
    const base = first.tokens.length - tokenizer.encode('</repository>').length;
    expect(second.tokens.subarray(0, base)).toEqual(first.tokens.subarray(0, base));
    expect(
      text.endsWith(
        '<deleted path="a.py"/>\n<file path="b.py" version="2">\nLIMIT = 2\n</file>\n<file path="d.py">\nNEW = 1\n</file>\n</repository>',
      ),
    ).toBe(true);
    expect(second.files.map((file) => file.path).sort()).toEqual(['b.py', 'c.py', 'd.py']);
    const texts = second.places.map(
      ({ start, end }) => tokenizer.decode(second.tokens.subarray(start, end)).split('\n')[0],
    );
    expect(texts).toEqual([
      ...['a', 'b', 'c'].map((name) => `<file path="${name}.py">`),
      ...['<deleted path="a.py"/>', '<file path="b.py" version="2">', '<file path="d.py">'],
    ]);
    expect(second.places.map((place) => place.path)).toEqual(
      ['a', 'b', 'c', 'a', 'b', 'd'].map((n) => `${n}.py`),
    );
    expect(second.files.find((file) => file.path === 'b.py')?.text).toBe('LIMIT = 2\n');

    edit(folder, 'b.py', 'LIMIT = 3 # again\n');
    const third = await packer.pack(await scanFolder(folder));
    expect(tokenizer.decode(third.tokens)).toContain('version="3">\nLIMIT = 3');
    expect(third.tokens.subarray(0, base + second.overlayTokens)).toEqual(
      second.tokens.subarray(0, base + second.overlayTokens),
    );

    // The last version that was read is replaced, not followed.
    edit(folder, 'b.py', 'LIMIT = 4\n');
    const fourth = await packer.pack(await scanFolder(folder));
    expect(fourth.places.map((place) => place.path)).toEqual(third.places.map((place) => place.path));
    expect(tokenizer.decode(fourth.tokens)).toMatch(/version="3">\nLIMIT = 4\n<\/file>\n<\/repository>$/);
    expect(tokenizer.decode(fourth.tokens)).not.toContain('LIMIT = 3');

    // One that came back is a first version behind the deletion, also when it is edited again.
    rmSync(path.join(folder, 'b.py'));
    await packer.pack(await scanFolder(folder));
    for (const limit of [5, 6]) {
      edit(folder, 'b.py', `LIMIT = ${limit}\n`);
      const { tokens } = await packer.pack(await scanFolder(folder));
      const end = `<deleted path="b.py"/>\n<file path="b.py">\nLIMIT = ${limit}\n</file>\n</repository>`;
      expect(tokenizer.decode(tokens).endsWith(end)).toBe(true);
    }
  });

  it('starts afresh when the edits have grown past a tenth', async () => {
    const folder = repository([
      ['a.py', long('a')],
      ['b.py', 'LIMIT = 1\n'],
      ['c.py', 'LAST = 1\n'],
    ]);
    const packer = new Packer({ name: 'r', tokenizer, budget: 60_000 });
    const first = await packer.pack(await scanFolder(folder));
    edit(folder, 'b.py', long('b'));
    const again = await packer.pack(await scanFolder(folder));
    expect(again.overlayTokens).toBe(0);
    expect(tokenizer.decode(again.tokens)).not.toContain('version=');
    // Up to the first edit, what was read serves.
    const { start } = first.places.find((place) => place.path === 'b.py')!;
    expect(again.tokens.subarray(0, start)).toEqual(first.tokens.subarray(0, start));
  });

  it('counts what was deleted, and starts afresh at once when much of it was excluded', async () => {
    const folder = repository([
      ...['a', 'b', 'c', 'd'].map((name): [string, string] => [`${name}.py`, long(name)]),
      ['lib/e.py', long('e')],
      ['lib/f.py', long('f')],
    ]);
    const rebaseLater = true;
    const packer = new Packer({ name: 'r', tokenizer, budget: 60_000 });
    const first = await packer.pack(await scanFolder(folder));
    rmSync(path.join(folder, 'a.py'));
    const second = await packer.pack(await scanFolder(folder), { rebaseLater });
    expect(second.overlayTokens).toBeLessThan(20);
    expect(packer.rebaseDue).toBe(true);
    const alone = new Packer({ name: 'r', tokenizer, budget: 60_000 });
    alone.adopt(packer.current!);
    expect((await alone.pack(await scanFolder(folder))).overlayTokens).toBe(0);
    const third = await packer.pack(await scanFolder(folder, { exclude: ['lib/'] }), { rebaseLater });
    expect(third.overlayTokens).toBe(0);
    expect(third.tokens.length).toBeLessThan(first.tokens.length * 0.6);
    expect(packer.rebaseDue).toBe(false);
  });

  it('looks again at what it left out, and lists what it leaves out later', async () => {
    const secret = `TOKEN = "${'ghp'}_${'a1B2'.repeat(9)}"\n`;
    const folder = repository([
      ['a.py', long('a')],
      ['b.py', secret],
      ['c.py', ' \n'],
      ['d.py', 'LIMIT = 1\n'],
      ['e.pem', 'x'],
    ]);
    const packer = new Packer({ name: 'r', tokenizer, budget: 60_000 });
    const left = async () => {
      const { files, skipped } = await packer.pack(await scanFolder(folder));
      expect(files.length + skipped.length).toBe(5);
      return skipped.map(({ path, reason }) => [path, reason]).sort();
    };
    const always = ['e.pem', 'secret'];
    expect(await left()).toEqual([['b.py', 'secret'], ['c.py', 'empty'], always]);
    edit(folder, 'b.py', 'TOKEN = read()\n');
    edit(folder, 'c.py', 'FILLED = 1\n');
    edit(folder, 'd.py', secret);
    expect(await left()).toEqual([['d.py', 'secret'], always]);
    edit(folder, 'd.py', 'LIMIT = 2\n');
    expect(await left()).toEqual([always]);
  });

  it('reads in a later process what the settings have since named the encoding of', async () => {
    const folder = repository([['a.py', long('a')]]);
    // `size`, in Russian, in windows-1251.
    writeFileSync(
      path.join(folder, 'b.c'),
      Buffer.from('// \xf0\xe0\xe7\xec\xe5\xf0\nint size;\n', 'latin1'),
    );
    const packer = () => new Packer({ name: 'r', tokenizer, budget: 60_000 });
    const before = packer();
    const { skipped } = await before.pack(await scanFolder(folder));
    expect(skipped).toEqual([{ path: 'b.c', reason: 'invalid-utf8' }]);
    const after = packer();
    after.adopt(lookingAgain(before.current!));
    const named = await after.pack(await scanFolder(folder, { encodings: [{ encoding: 'windows1251' }] }));
    expect(named.skipped).toEqual([]);
    expect(named.files.find((file) => file.path === 'b.c')?.text).toBe('// размер\nint size;\n');
  });

  it('counts as useless what files that are gone left in the first packing, not in the edits', async () => {
    const folder = repository([
      ['a.py', long('a')],
      ['b.py', long('b')],
      ['c.py', 'LIMIT = 1\n'],
    ]);
    const packer = new Packer({ name: 'r', tokenizer, budget: 60_000 });
    const { files } = await packer.pack(await scanFolder(folder));
    edit(folder, 'd.py', 'NEW = 1\n');
    await packer.pack(await scanFolder(folder));
    rmSync(path.join(folder, 'd.py'));
    expect((await packer.pack(await scanFolder(folder))).packing.dead).toBe(0);
    rmSync(path.join(folder, 'c.py'));
    const { packing } = await packer.pack(await scanFolder(folder));
    expect(packing.dead).toBe(files.find((file) => file.path === 'c.py')!.tokens);
    expect(placesOf(packing)).toHaveLength(3 + packing.overlay.length);
    expect(placesOf({ ...packing, baseSizes: [] })).toEqual([]);
  });

  it('lists the base64 that it leaves out of files that it reads', async () => {
    const folder = repository([
      ['a.css', style('a')],
      ['b.css', '.b {}\n'],
    ]);
    const packer = new Packer({ name: 'r', tokenizer, budget: 60_000 });
    const { files, skipped } = await packer.pack(await scanFolder(folder));
    expect(files.map((file) => file.path)).toEqual(['a.css', 'b.css']);
    expect(skipped).toEqual([{ path: 'a.css', reason: 'base64', detail: '4 KiB' }]);
    expect(files[0]!.text).toBe('.a { src: url(data:font/woff2;base64,[4 KiB of base64 left out]); }\n');
    // What an editor holds, too.
    const buffers = new Map([[nameKey(path.join(folder, 'b.css')), style('b') + style('c')]]);
    const edited = await packer.pack(await scanFolder(folder), { buffers });
    expect(edited.skipped.at(-1)).toEqual({ path: 'b.css', reason: 'base64', detail: '8 KiB' });
    // And not what a file says itself, be it the same text.
    writeFileSync(path.join(folder, 'a.css'), files[0]!.text);
    expect((await packer.pack(await scanFolder(folder))).skipped).toEqual([]);
  });

  it('lists that base64 again where the packing was kept by an earlier process', async () => {
    const folder = repository([['a.css', style('a')]]);
    const packer = () => new Packer({ name: 'r', tokenizer, budget: 60_000 });
    const first = packer();
    const { skipped } = await first.pack(await scanFolder(folder));
    const kept = mkdtempSync(path.join(tmpdir(), 'longview-pack-'));
    await writePacking(kept, first.current!);
    const second = packer();
    second.adopt((await readPacking(kept, tokenizer.vocabularySize))!);
    expect((await second.pack(await scanFolder(folder))).skipped).toEqual(skipped);
  });

  it('reads what an editor holds of a file that is empty on disk', async () => {
    const folder = repository([
      ['a.py', 'x = 1\n'],
      ['new.py', ''],
      ['empty.py', ''],
    ]);
    const packer = new Packer({ name: 'r', tokenizer, budget: 60_000 });
    const pack = async (buffers?: Map<string, string>) => {
      const { files, skipped } = await packer.pack(await scanFolder(folder), { buffers });
      return [files.map((file) => file.path), skipped.map(({ path, reason }) => [path, reason])];
    };
    const text = new Map([[nameKey(path.join(folder, 'new.py')), 'def brand_new():\r\n    pass\r\n']]);
    const empty = ['empty.py', 'empty'];
    expect(await pack()).toEqual([['a.py'], [empty, ['new.py', 'empty']]]);
    expect(await pack(text)).toEqual([['a.py', 'new.py'], [empty]]);
    expect(packer.current!.entries.get('new.py')!.text).toBe('def brand_new():\n    pass\n');
    expect(await pack(new Map())).toEqual([['a.py'], [empty, ['new.py', 'empty']]]);
    // What is left out for what an editor holds comes back when that is not saved.
    const secret = new Map([
      [nameKey(path.join(folder, 'a.py')), `TOKEN = "${'ghp'}_${'a1B2'.repeat(9)}"\n`],
    ]);
    edit(folder, 'b.py', 'y = 1\n');
    expect(await pack(secret)).toEqual([['b.py'], [empty, ['new.py', 'empty'], ['a.py', 'secret']]]);
    expect(await pack(new Map())).toEqual([
      ['b.py', 'a.py'],
      [empty, ['new.py', 'empty']],
    ]);
  });

  it('says how far it is and can be stopped between a few large files, packed afresh and packed again', async () => {
    const names = Array.from({ length: 30 }, (_, i) => `${i}.py`);
    const folder = repository(names.map((name) => [name, long(name).repeat(15)]));
    const packer = new Packer({ name: 'r', tokenizer, budget: 6_000_000 });
    const stopped = async () => {
      const stop = new AbortController();
      let told = 0;
      const onProgress = (done: number, total: number) => {
        told++;
        expect(done).toBeLessThan(total);
        // As a request to stop comes: while other work runs.
        setImmediate(() => stop.abort());
      };
      const packing = packer.pack(await scanFolder(folder), { signal: stop.signal, onProgress });
      await expect(packing).rejects.toMatchObject({ code: 'cancelled' });
      expect(told).toBe(1);
    };
    await stopped();
    await packer.pack(await scanFolder(folder));
    for (const name of names) edit(folder, name, long(`${name}, edited`).repeat(15));
    await stopped();
  });

  it('is stopped by its signal', async () => {
    const folder = repository([['a.py', 'x']]);
    const packer = new Packer({ name: 'r', tokenizer, budget: 60_000 });
    const scan = await scanFolder(folder);
    await expect(packer.pack(scan, { signal: AbortSignal.abort() })).rejects.toMatchObject({
      code: 'cancelled',
    });
    expect((await packer.pack(scan)).files.length).toBe(1);
    await expect(packer.pack(scan, { signal: AbortSignal.abort() })).rejects.toMatchObject({
      code: 'cancelled',
    });
  });
});
