/** Files that are read as evaluation data: whole ones, and damaged ones, which must be refused with a sentence. */
import {
  closeSync,
  ftruncateSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { checkReadable, readData, writeData } from './sequences';
import { writeSafetensors } from './safetensors';

const folder = mkdtempSync(join(tmpdir(), 'longview-eval-'));
afterAll(() => rmSync(folder, { recursive: true }));

const i32 = (shape: number[], ...values: number[]) => ({
  dtype: 'I32' as const,
  shape,
  data: Int32Array.from(values),
});
const u8 = (shape: number[], ...values: number[]) => ({
  dtype: 'U8' as const,
  shape,
  data: Uint8Array.from(values),
});

const file = join(folder, 'data.safetensors');
const good = { tokens: i32([2, 3], 5, 6, 7, 8, 9, 10), mask: u8([2, 3], 0, 1, 1, 0, 0, 1) };

/** The file with another header: a text, or a change to the parsed one. */
function withHeader(change: string | ((header: Record<string, Record<string, unknown>>) => void)): void {
  writeSafetensors(file, good);
  const bytes = readFileSync(file);
  const end = 8 + Number(bytes.readBigUInt64LE());
  let json = change;
  if (typeof json !== 'string') {
    const header = JSON.parse(bytes.toString('utf8', 8, end)) as Record<string, Record<string, unknown>>;
    json(header);
    json = JSON.stringify(header);
  }
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(Buffer.byteLength(json)));
  writeFileSync(file, Buffer.concat([length, Buffer.from(json), bytes.subarray(end)]));
}

describe('evaluation data', () => {
  it('comes back as it was written, kinds and all', () => {
    const data = {
      n: 4,
      sequences: [
        { index: 0, tokens: Int32Array.of(1, 2, 3, 4), answers: [{ from: 2, to: 4, kind: 'where' }] },
        {
          index: 1,
          tokens: Int32Array.of(5, 6, 7, 8),
          answers: [
            { from: 1, to: 2, kind: 'value' },
            { from: 3, to: 4, kind: 'doc' },
          ],
        },
      ],
    };
    writeData(file, data);
    expect(readData(file)).toEqual(data);
  });

  it('skips sequences without an answer and keeps their numbers', () => {
    writeSafetensors(file, { ...good, mask: u8([2, 3], 0, 0, 0, 0, 1, 1) });
    expect(readData(file).sequences.map(({ index }) => index)).toEqual([1]);
  });

  it('says which of the rows that were asked for have no answer, and which are not there', () => {
    const said: string[] = [];
    const chosen = (...rows: number[]) => {
      said.length = 0;
      const { sequences } = readData(file, rows.length > 0 ? rows : undefined, (what) => said.push(what));
      return sequences.map(({ index }) => index);
    };
    writeSafetensors(file, {
      tokens: i32([3, 2], 5, 6, 7, 8, 9, 10),
      mask: u8([3, 2], 0, 1, 0, 0, 0, 1),
    });
    expect([chosen(2, 0), said]).toEqual([[0, 2], []]);
    expect([chosen(2, 1, 1), said]).toEqual([
      [2],
      [expect.stringMatching(/no answer.*1 of 2 sequences \(1\)/)],
    ]);
    expect([chosen(), said]).toEqual([[0, 2], [expect.stringMatching(/no answer.*1 of 3 sequences \(1\)/)]]);
    expect(() => chosen(1)).toThrow(/none of these sequences has an answer/);
    expect(() => chosen(0, 3)).toThrow(/no sequence 3, only 0 to 2/);
  });

  it.each<[string, RegExp]>([
    ['[', /header is not JSON/],
    ['[]', /header is not an object/],
    ['{"tokens": 5, "mask": null}', /entry of `tokens`/],
    ['{"mask": {}}', /no tensor `tokens`/],
    ['{"__proto__": {"tokens": 1}}', /no tensor `tokens`/],
  ])('refuses the header %s', (header, message) => {
    withHeader(header);
    expect(() => readData(file)).toThrow(message);
  });

  it('quotes of the file no more than a few lines', () => {
    const long = 'x'.repeat(100_000);
    withHeader(JSON.stringify({ [long]: {} }));
    expect(() => readData(file)).toThrow(/no tensor `tokens`; there are: x+…$/);
    expect(() => readData(file)).not.toThrow(long.slice(0, 600));
  });

  it.each<[string, unknown, RegExp]>([
    ['shape', [2, 2 ** 40], /does not fit/],
    ['shape', [2 ** 52, 2 ** 52], /does not fit/],
    ['shape', [2, -3], /entry of `tokens`/],
    ['shape', '2,3', /entry of `tokens`/],
    ['data_offsets', [0, 2 ** 40], /does not fit/],
    ['data_offsets', [24, 0], /does not fit/],
    ['data_offsets', [8, 32], /does not fit/],
    ['data_offsets', [-8, 16], /entry of `tokens`/],
    ['data_offsets', [0.5, 24.5], /entry of `tokens`/],
    ['dtype', 'I64', /is I64, not I32/],
  ])('refuses %s %j', (key, value, message) => {
    withHeader((header) => (header.tokens![key] = value));
    expect(() => readData(file)).toThrow(message);
  });

  it.each<[string, Parameters<typeof writeSafetensors>[1], RegExp]>([
    ['other shapes', { ...good, mask: u8([3, 2], 0, 1, 1, 0, 0, 1) }, /`mask` is \[3, 2\]/],
    ['one dimension', { tokens: i32([6], 5, 6, 7, 8, 9, 10), mask: u8([6], 0, 1, 1, 0, 0, 1) }, /not \[seq/],
    ['a mask of 2', { ...good, mask: u8([2, 3], 0, 2, 1, 0, 0, 1) }, /other values/],
    ['no answer', { ...good, mask: u8([2, 3], 0, 0, 0, 0, 0, 0) }, /no answer/],
    [
      'an answer after nothing',
      { ...good, mask: u8([2, 3], 0, 1, 0, 1, 0, 1) },
      /at the start of sequence 1/,
    ],
  ])('refuses %s', (_what, tensors, message) => {
    writeSafetensors(file, tensors);
    expect(() => readData(file)).toThrow(message);
  });

  it.each<[string, number[], RegExp | undefined]>([
    [
      'a token that the model does not have',
      [5, 6, 7, 8, 100, 10],
      /Sequence 1 has the token 100 at position 1, .* of 100/,
    ],
    ['a negative token', [5, 6, 7, -100, 9, 10], /Sequence 1 has the token -100 at position 0/],
    ['a sequence beyond the window', [5, 6, 7, 8, 9, 10, 11, 12], /Sequence 1 has 4 tokens .* window of 3/],
    ['nothing for what follows the last answer', [5, 6, 7, -1, 8, 9, 99, -100], undefined],
  ])('refuses %s', (_what, tokens, message) => {
    const n = tokens.length / 2;
    const mask = [
      ...Array.from({ length: n }, (_, i) => Number(i === 1)),
      ...Array.from({ length: n }, (_, i) => Number(i === (message ? n - 1 : 2))),
    ];
    writeSafetensors(file, { tokens: i32([2, n], ...tokens), mask: u8([2, n], ...mask) });
    const check = () => checkReadable(readData(file), 100, 3);
    if (message) expect(check).toThrow(message);
    else check();
  });

  it('refuses a file cut anywhere', () => {
    writeSafetensors(file, good);
    const bytes = readFileSync(file);
    for (let length = 0; length < bytes.length; length++) {
      writeFileSync(file, bytes.subarray(0, length));
      expect(() => readData(file)).toThrow(file);
    }
  });

  it('may be larger than what one call reads, or memory holds: of the tokens only what is needed is read', () => {
    const n = 180_000_000;
    const header = (shape: number[]) => {
      const [tokenBytes, maskBytes] = [4, 1].map((bytes) => shape.reduce((a, b) => a * b, bytes)) as [
        number,
        number,
      ];
      const json = JSON.stringify({
        tokens: { dtype: 'I32', shape, data_offsets: [maskBytes, maskBytes + tokenBytes] },
        mask: { dtype: 'U8', shape, data_offsets: [0, maskBytes] },
      });
      const length = Buffer.alloc(8);
      length.writeBigUInt64LE(BigInt(json.length));
      return { bytes: Buffer.concat([length, Buffer.from(json)]), maskBytes, tokenBytes };
    };
    const sparse = (shape: number[], marked: number, token: number) => {
      const { bytes, maskBytes, tokenBytes } = header(shape);
      const fd = openSync(file, 'w');
      ftruncateSync(fd, bytes.length + maskBytes + tokenBytes);
      writeSync(fd, bytes, 0, bytes.length, 0);
      writeSync(fd, Uint8Array.of(1), 0, 1, bytes.length + marked);
      writeSync(fd, Int32Array.of(token), 0, 4, bytes.length + maskBytes + 4 * marked);
      closeSync(fd);
    };
    // 2.01 GiB of tokens, of which the answer is in the last one: of the others none is read.
    sparse([3, n], 2 * n + 5, 77);
    expect(readData(file)).toEqual({
      n,
      sequences: [
        { index: 2, tokens: Int32Array.of(0, 0, 0, 0, 0, 77), answers: [{ from: 5, to: 6, kind: '' }] },
      ],
    });
    sparse([1, 2 ** 28 + 6], 2 ** 28 + 5, 77);
    expect(() => readData(file)).toThrow(/sequence 0 has 268435462 tokens .*: no model reads so many/);
  });

  it('is written, too, where it is larger than what one call writes', () => {
    // Memory that nothing was written to, to where nothing is kept: that takes no time.
    const data = new Uint8Array(2 ** 31 + 8);
    writeSafetensors('/dev/null', { mask: { dtype: 'U8', shape: [1, data.length], data } });
  });

  it('refuses a mask whose answers would fill the memory', () => {
    const n = 2 ** 21 + 4;
    const mask = { dtype: 'U8', shape: [1, n], data: Uint8Array.from({ length: n }, (_, i) => i % 2) };
    writeSafetensors(file, { tokens: { dtype: 'I32', shape: [1, n], data: new Int32Array(n) }, mask });
    expect(() => readData(file)).toThrow(/`mask` marks more than 1048576 answers up to sequence 0/);
    mask.data.fill(1, 4, 7); // two fewer, and as many as may be
    writeSafetensors(file, { tokens: { dtype: 'I32', shape: [1, n], data: new Int32Array(n) }, mask });
    expect(readData(file).sequences[0]!.answers.length).toBe(2 ** 20);
  });

  it('refuses kinds that are not one for each answer', () => {
    writeSafetensors(file, good, { kinds: 'where' });
    expect(() => readData(file)).toThrow(/names 1 kinds, `mask` marks 2/);
  });
});
