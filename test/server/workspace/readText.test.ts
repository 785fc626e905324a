/** What text a file gives, and why others give none. */
import { execFileSync } from 'node:child_process';
import { symlinkSync } from 'node:fs';
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import { readText, textFault } from '../../../server/workspace/readText';
import { repository } from './repository';

describe('readText', () => {
  const read = (content: string | Buffer) => {
    const folder = repository([['file.js', content]]);
    return readText({ path: 'file.js', absolutePath: path.join(folder, 'file.js') });
  };

  const whole = (text: string) => ({ text, base64KiB: 0 });

  it('gives lines that end in line feeds, as many as the editor counts', async () => {
    expect(await read('one\r\ntwo\rthree\nfour')).toEqual(whole('one\ntwo\nthree\nfour'));
    expect(await read('\ufeffone\n')).toEqual(whole('one\n'));
  });

  it('reads UTF-16 by the mark that it begins with', async () => {
    const text = '-- Orders é 🦀\r\nSELECT 1;\r\n';
    const little = Buffer.from(`\ufeff${text}`, 'utf16le');
    const big = Buffer.from(little).swap16();
    for (const bytes of [little, big]) expect(await read(bytes)).toEqual(whole(text.replaceAll('\r', '')));
    expect(await read(Buffer.from(text, 'utf16le'))).toEqual({ reason: 'binary' });
    expect(await read(little.subarray(0, -1))).toEqual({ reason: 'invalid-utf8' });
    // UTF-32 begins alike.
    expect(await read(Buffer.from('\ufeff\0a\0b\0', 'utf16le'))).toEqual({ reason: 'binary' });
    expect(await read(Buffer.from('\ufeff', 'utf16le'))).toEqual({ reason: 'empty' });
  });

  it('says why a file has no text', async () => {
    expect(await read(Buffer.from([0x61, 0xff, 0xfe]))).toEqual({ reason: 'invalid-utf8' });
    expect(await read(Buffer.from('MZ\0\x01 and more'))).toEqual({ reason: 'binary' });
    expect(await read(' \n\n')).toEqual({ reason: 'empty' });
    expect(await read(`var a=1;${'f(1,2,3);'.repeat(3000)}`)).toEqual({ reason: 'minified' });
    const gone = path.join(repository([]), 'gone.ts');
    expect(await readText({ path: 'gone.ts', absolutePath: gone })).toEqual({ reason: 'unreadable' });
  });

  it('leaves out what would keep a tokenizer busy for minutes', () => {
    const detail = 'one unbroken run of 20,000 characters';
    for (const run of ['A', '=', '7']) {
      expect(textFault('a.txt', `${run.repeat(20_000)}\n`)).toEqual({ reason: 'generated', detail });
      expect(textFault('a.txt', `${run.repeat(9_999)}\n`.repeat(9))).toBeUndefined();
    }
    expect(textFault('a.txt', `x${' '.repeat(20_000)}x`)).toEqual({ reason: 'generated', detail });
  });

  it('leaves out a run that a regular expression has no stack for', () => {
    const detail = 'one unbroken run of millions of characters';
    const runs = ['漢'.repeat(8_000_000), '\u0301'.repeat(8_000_000), `sk_live_${'a1'.repeat(12_000_000)}`];
    for (const run of runs) expect(textFault('a.txt', run)).toEqual({ reason: 'generated', detail });
    // Of a notebook, in what was left out of its text.
    expect(textFault('a.ipynb', 'x', runs[2])).toEqual({ reason: 'generated', detail });
  });

  it('sees runs as tokenizers do, and what many of them take together', () => {
    const generated = { reason: 'generated', detail: expect.stringContaining('unbroken run') as string };
    // A mark, U+FEFF and the control NEL do not end a run of signs or of white space in their patterns.
    for (const [run, between] of [
      ['=', '\u0301'],
      ['=', '\ufeff'],
      [' ', '\u0085'],
    ] as const)
      expect(textFault('a.txt', `x${`${run.repeat(15_000)}${between}`.repeat(2)}x`)).toEqual(generated);
    expect(textFault('a.txt', `${'a'.repeat(16_000)}1`.repeat(60))).toEqual(generated);
    expect(textFault('a.txt', '中'.repeat(16_000))).toEqual(generated);
    expect(textFault('a.txt', `${'中'.repeat(200)}。\n`.repeat(1500))).toBeUndefined();
    expect(textFault('a.txt', `${'-'.repeat(80)} ${'word '.repeat(20)}\n`.repeat(5000))).toBeUndefined();
  });

  it('does not follow a link that took the place of a file, nor wait for a pipe', async () => {
    const folder = repository([['real.ts', 'x']]);
    symlinkSync('real.ts', path.join(folder, 'link.ts'));
    execFileSync('mkfifo', [path.join(folder, 'pipe.ts')]);
    const from = (name: string) => readText({ path: name, absolutePath: path.join(folder, name) });
    expect(await from('link.ts')).toEqual({ reason: 'unreadable' });
    expect(await from('pipe.ts')).toHaveProperty('reason');
  });
});
