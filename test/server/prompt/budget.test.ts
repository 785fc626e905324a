/** Packing where not all files fit: which leave, which stay, and what is kept free. */
import { rmSync } from 'node:fs';
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import { Packer, type PackedRepository } from '../../../server/prompt/pack';
import { scanFolder } from '../../../server/workspace/scan';
import { repository } from '../workspace/repository';
import { edit, long, tokenizer } from './packed';

describe('Packer, where not all fits', () => {
  it('keeps room for edits where not all fits, and forgets what had no room when it is gone', async () => {
    const folder = repository([
      ...['a', 'b', 'c', 'd', 'e'].map((name): [string, string] => [`${name}.py`, long(name)]),
      ['LARGE.py', long('larger') + long('more')],
    ]);
    const whole = await new Packer({ name: 'r', tokenizer, budget: 60_000 }).pack(await scanFolder(folder));
    const exact = new Packer({ name: 'r', tokenizer, budget: whole.tokens.length, editRoom: 200 });
    expect((await exact.pack(await scanFolder(folder))).skipped).toEqual([]);
    const budget = whole.tokens.length - 100;
    const packer = new Packer({ name: 'r', tokenizer, budget, editRoom: 200 });
    const first = await packer.pack(await scanFolder(folder));
    expect(first.skipped).toMatchObject([{ path: 'LARGE.py', reason: 'over-budget' }]);
    const tight = new Packer({ name: 'r', tokenizer, budget: first.tokens.length + 20, editRoom: 100 });
    expect((await tight.pack(await scanFolder(folder))).files.length).toBe(first.files.length - 1);
    edit(folder, 'new.py', 'NEW = 1\n');
    const second = await tight.pack(await scanFolder(folder));
    expect(second.overlayTokens).toBeGreaterThan(0);
    rmSync(path.join(folder, 'LARGE.py'));
    const { skipped } = await tight.pack(await scanFolder(folder));
    expect(skipped.map((file) => file.path)).not.toContain('LARGE.py');
  });

  it('takes what did not fit where a later process has more room, once', async () => {
    const folder = repository([
      ['a.py', long('a')],
      ['b.py', long('b').repeat(2)],
      ['c.py', long('c').repeat(9)],
    ]);
    const packed = async (budget: number, former?: Packer) => {
      const packer = new Packer({ name: 'r', tokenizer, budget });
      if (former) packer.adopt(former.current!);
      const { files, tokens } = await packer.pack(await scanFolder(folder));
      return { packer, files: files.map((file) => file.path), tokens };
    };
    const short = await packed(2000);
    expect(short.files).toEqual(['a.py']);
    expect((await packed(2200, short.packer)).tokens).toEqual(short.tokens);
    const roomy = await packed(4000, short.packer);
    expect(roomy.files).toEqual(['a.py', 'b.py']);
    expect((await packed(4000, roomy.packer)).tokens).toEqual(roomy.tokens);
    expect((await packed(60_000, roomy.packer)).files).toEqual(['a.py', 'b.py', 'c.py']);
  });

  it('takes a file that did not fit when it has become small enough', async () => {
    const folder = repository([
      ['a.py', long('a')],
      ['large.py', long('large').repeat(9)],
    ]);
    const packer = new Packer({ name: 'r', tokenizer, budget: 3000 });
    const first = await packer.pack(await scanFolder(folder));
    const [over] = first.skipped;
    expect(over).toMatchObject({ path: 'large.py', reason: 'over-budget' });
    edit(folder, 'large.py', long('large').repeat(8));
    const smaller = await packer.pack(await scanFolder(folder));
    expect(smaller.tokens).toEqual(first.tokens);
    expect(smaller.skipped[0]).toMatchObject({ path: 'large.py', reason: 'over-budget' });
    expect(smaller.skipped[0]?.detail).not.toBe(over?.detail);
    edit(folder, 'large.py', 'LIMIT = 17\n');
    const small = await packer.pack(await scanFolder(folder));
    expect(small.skipped).toEqual([]);
    expect(tokenizer.decode(small.tokens)).toContain('<file path="large.py">\nLIMIT = 17\n</file>\n');
    const base = first.tokens.length - tokenizer.encode('</repository>').length;
    expect(small.tokens.subarray(0, base)).toEqual(first.tokens.subarray(0, base));
  });

  it('leaves whole files out by its rule, and lists them', async () => {
    const folder = repository([
      ['src/small.py', 'x = 1\n'],
      ['src/large.py', long('large')],
      ['src/larger.py', long('larger') + long('more')],
      ['tests/test_small.py', 'def test(): pass\n'],
      ['data.json', '{}\n'],
    ]);
    const all = await new Packer({ name: 'r', tokenizer, budget: 60_000 }).pack(await scanFolder(folder));
    const sizes = new Map(all.files.map(({ path, tokens }) => [path, tokens]));
    const budget = all.tokens.length - sizes.get('tests/test_small.py')! - sizes.get('src/larger.py')!;
    const some = await new Packer({ name: 'r', tokenizer, budget }).pack(await scanFolder(folder));
    expect(some.tokens.length).toBeLessThanOrEqual(budget);
    expect(some.files.map((file) => file.path)).toEqual(['src/small.py', 'src/large.py']);
    expect(some.skipped.map(({ path, reason }) => [path, reason])).toEqual([
      ['src/larger.py', 'over-budget'],
      ['data.json', 'over-budget'],
      ['tests/test_small.py', 'over-budget'],
    ]);
    await expect(
      new Packer({ name: 'r', tokenizer, budget: 80 }).pack(await scanFolder(folder)),
    ).rejects.toMatchObject({ code: 'window_exceeded' });
  });

  it('reads small files behind one that is too large, and no more once there is little room', async () => {
    const large = long('large').repeat(9);
    const folder = repository([
      ['src/a.py', 'x = 1\n'],
      ['src/generated.py', large],
      ['src/more.py', `${large}# more\n`],
      ['config.json', '{}\n'],
      ['data.json', large],
      ['tests/test_a.py', 'def test(): pass\n'],
      ['tests/test_b.py', long('b')],
      ['tests/test_c.py', long('c') + long('more')],
      ['tests/test_d.py', long('d') + long('more') + long('more')],
    ]);
    const tokens = tokenizer.encode(long('b')).length;
    const looked: string[] = [];
    const counting = {
      ...tokenizer,
      encode: (text: string) => {
        looked.push(/^<file path="(.+)">/.exec(text)?.[1] ?? '');
        return tokenizer.encode(text);
      },
    };
    const pack = (budget: number) =>
      new Packer({ name: 'r', tokenizer: counting, budget, editRoom: 50 }).pack(scan);
    const scan = await scanFolder(folder);
    const some = await pack(Math.ceil(tokens * 2.6));
    expect(some.files.map((file) => file.path)).toEqual([
      ...['src/a.py', 'config.json', 'tests/test_a.py', 'tests/test_b.py'],
    ]);
    expect(some.skipped.map(({ path, detail }) => [path, /tokens|KiB/.exec(detail!)?.[0]])).toEqual([
      ['src/generated.py', 'tokens'],
      // Not counted: at least as large as one that did not fit.
      ['src/more.py', 'KiB'],
      ['data.json', 'KiB'],
      ['tests/test_c.py', 'tokens'],
      ['tests/test_d.py', 'KiB'],
    ]);
    expect(looked).not.toContain('src/more.py');
    expect(looked).not.toContain('data.json');
    // The smallest source takes nearly all of it.
    const little = await pack(tokenizer.encode(large).length + some.tokens.length - tokens);
    expect(little.files.map((file) => file.path)).toContain('src/generated.py');
    expect((await pack(Math.ceil(tokens * 2.6))).tokens).toEqual(some.tokens);
  });

  it('has smaller files stay in the room of one that leaves for edits', async () => {
    const folder = repository([
      ['src/small.py', 'x = 1\n'],
      ['src/large.py', long('large').repeat(5)],
      ['src/larger.py', long('larger').repeat(6)],
      ['README.md', '# Orders\n'],
      ['tests/test_small.py', 'def test(): pass\n'],
    ]);
    const scan = await scanFolder(folder);
    const large = tokenizer.encode(long('large').repeat(5)).length;
    const packed = (editRoom: number) =>
      new Packer({ name: 'r', tokenizer, budget: large + 200, editRoom }).pack(scan);
    const paths = ({ files }: PackedRepository) => files.map(({ path }) => path).sort();
    expect(paths(await packed(0))).toEqual(['src/large.py', 'src/small.py']);
    const some = await packed(200);
    expect(paths(some)).toEqual(['README.md', 'src/small.py', 'tests/test_small.py']);
    expect(some.skipped.map(({ path, reason }) => [path, reason])).toEqual([
      ['src/larger.py', 'over-budget'],
      ['src/large.py', 'over-budget'],
    ]);
  });

  it('takes the room for edits from no file that is the only one', async () => {
    const folder = repository([
      ['a.py', long('a')],
      ['b.py', 'value = compute(value)\n'.repeat(400)],
    ]);
    const packer = (budget: number, editRoom = 0) => new Packer({ name: 'r', tokenizer, budget, editRoom });
    const { tokens } = (await packer(60_000).pack(await scanFolder(folder))).files.find(
      ({ path }) => path === 'a.py',
    )!;
    const { files } = await packer(tokens + 150, 140).pack(await scanFolder(folder));
    expect(files.map((file) => file.path)).toEqual(['a.py']);
  });

  it('leaves a file that had no room out until it is smaller or the window is much larger', async () => {
    const limits = (limit: number) => `LIMIT = ${limit}\n`.repeat(5);
    const folder = repository([
      ...['a', 'b', 'c'].map((name): [string, string] => [`${name}.py`, long(name)]),
      ['tests/d.py', limits(1)],
      ['tests/e.py', 'value = compute(value)\n'.repeat(8)],
    ]);
    const packer = (budget: number) => new Packer({ name: 'r', tokenizer, budget, editRoom: 100 });
    const whole = (await packer(60_000).pack(await scanFolder(folder))).tokens.length;
    const first = packer(whole - 1);
    const { packing, skipped } = await first.pack(await scanFolder(folder));
    expect(skipped.map((file) => file.path)).toEqual(['tests/e.py', 'tests/d.py']);
    const paths = ({ files }: PackedRepository) => files.map((file) => file.path);
    edit(folder, 'tests/d.py', limits(2));
    expect(paths(await first.pack(await scanFolder(folder)))).not.toContain('tests/d.py');
    // Nor where the window is a little larger, nor where it is not known for which one the packing was made.
    for (const [kept, budget] of [
      [packing, whole + 60],
      [{ ...packing, budget: 0 }, 60_000],
    ] as const) {
      const next = packer(budget);
      next.adopt(kept);
      const again = await next.pack(await scanFolder(folder));
      expect(paths(again)).not.toContain('tests/d.py');
      expect(again.packing.base).toBe(packing.base);
    }
    const wide = packer(60_000);
    wide.adopt(packing);
    expect(paths(await wide.pack(await scanFolder(folder)))).toContain('tests/d.py');
    edit(folder, 'tests/d.py', 'MAX = 2\n');
    expect(paths(await first.pack(await scanFolder(folder)))).toContain('tests/d.py');
  });

  it('leaves out no more files than it must, however much of them is their names', async () => {
    const names = Array.from({ length: 400 }, (_, i) => `ui/AccountNotificationPreferencesPanel${i}.tsx`);
    const folder = repository(names.map((name) => [name, 'export {};\n']));
    for (const editRoom of [0, 500]) {
      const packer = new Packer({ name: 'r', tokenizer, budget: 10_000, editRoom });
      const { files, skipped, tokens } = await packer.pack(await scanFolder(folder));
      expect(files.length + skipped.length).toBe(names.length);
      expect(skipped.length).toBeGreaterThan(50);
      const free = 10_000 - editRoom - tokens.length;
      expect(free).toBeGreaterThanOrEqual(0);
      expect(free).toBeLessThan(tokens.length / files.length);
    }
  });
});
