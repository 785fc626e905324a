/**
 * Tensors in a safetensors file: u64 little-endian header length, JSON header, data. Files come from anywhere, so every
 * number in a header is checked before it is used.
 */
import { closeSync, fstatSync, openSync, readSync, writeFileSync } from 'node:fs';

export interface Tensor {
  dtype: 'I32' | 'U8';
  shape: number[];
  data: Int32Array | Uint8Array;
}

const bytesOf = { I32: 4, U8: 1 };
const largestHeader = 100_000_000;

interface Entry {
  dtype: string;
  shape: number[];
  data_offsets: [number, number];
}

function isEntry(value: unknown): value is Entry {
  const { dtype, shape, data_offsets: offsets } = (value ?? {}) as Partial<Entry>;
  const counts = (list: unknown): list is number[] =>
    Array.isArray(list) && list.every((x) => Number.isSafeInteger(x) && (x as number) >= 0);
  return typeof dtype === 'string' && counts(shape) && counts(offsets) && offsets.length === 2;
}

/** The named tensors and the file's metadata. Throws a sentence for what is missing, damaged or of another type. */
export function readSafetensors<Name extends string>(
  path: string,
  wanted: Record<Name, Tensor['dtype']>,
): { tensors: Record<Name, Tensor>; metadata: Record<string, string> } {
  const fail = (what: string): never => {
    throw new Error(`${path}: ${what}`);
  };
  const file = openSync(path, 'r');
  try {
    const stat = fstatSync(file);
    if (!stat.isFile()) fail('not a file');
    const { size } = stat;
    const read = (at: number, length: number) => {
      const bytes = Buffer.alloc(length);
      for (let done = 0; done < length;) {
        const got = readSync(file, bytes, done, length - done, at + done);
        if (got === 0) fail('the file ended while it was read');
        done += got;
      }
      return bytes;
    };
    if (size < 8) fail(`not a safetensors file: ${size} bytes`);
    const length = read(0, 8).readBigUInt64LE();
    if (length > largestHeader || length > size - 8)
      fail(`not a safetensors file: a header of ${length} bytes in a file of ${size}`);
    const start = 8 + Number(length);
    const header = parseHeader(read(8, Number(length)).toString('utf8'), fail);

    const tensors = Object.entries(wanted).map(([name, dtype]) => {
      if (!Object.hasOwn(header, name))
        return fail(`no tensor \`${name}\`; there are: ${Object.keys(header).slice(0, 20).join(', ')}`);
      const entry = header[name];
      if (!isEntry(entry)) return fail(`the header's entry of \`${name}\` is not a tensor's`);
      if (entry.dtype !== dtype) return fail(`\`${name}\` is ${entry.dtype}, not ${dtype as string}`);
      const [from, to] = entry.data_offsets;
      const bytes = entry.shape.reduce((product, x) => product * x, bytesOf[dtype as Tensor['dtype']]);
      if (from > to || to > size - start || to - from !== bytes)
        return fail(
          `\`${name}\` [${entry.shape.join(', ')}] does not fit bytes ${from} to ${to} of ${size - start}`,
        );
      const raw = read(start + from, bytes);
      const data = dtype === 'U8' ? new Uint8Array(raw) : new Int32Array(Uint8Array.from(raw).buffer);
      return [name, { dtype, shape: entry.shape, data }];
    });
    const { __metadata__: metadata } = header;
    const strings = Object.entries(metadata ?? {}).filter(([, v]) => typeof v === 'string');
    return {
      tensors: Object.fromEntries(tensors) as Record<Name, Tensor>,
      metadata: Object.fromEntries(strings),
    };
  } finally {
    closeSync(file);
  }
}

function parseHeader(text: string, fail: (what: string) => never): Record<string, unknown> {
  let header: unknown;
  try {
    header = JSON.parse(text);
  } catch {
    fail('not a safetensors file: its header is not JSON');
  }
  if (typeof header !== 'object' || header === null || Array.isArray(header))
    return fail('not a safetensors file: its header is not an object');
  return header as Record<string, unknown>;
}

/** Of any type: `dtype` is what the format calls that of `data`. */
export function writeSafetensors(
  path: string,
  tensors: Record<string, { dtype: string; shape: number[]; data: ArrayBufferView }>,
  metadata: Record<string, string> = {},
): void {
  const header: Record<string, unknown> = { __metadata__: metadata };
  let end = 0;
  for (const [name, { dtype, shape, data }] of Object.entries(tensors)) {
    header[name] = { dtype, shape, data_offsets: [end, end + data.byteLength] };
    end += data.byteLength;
  }
  const json = Buffer.from(JSON.stringify(header));
  // Spaces up to a multiple of 8: the data stands aligned.
  const padded = Buffer.concat([json, Buffer.alloc((8 - (json.length % 8)) % 8, ' ')]);
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(padded.length));
  const parts = Object.values(tensors).map(({ data }) =>
    Buffer.from(data.buffer, data.byteOffset, data.byteLength),
  );
  writeFileSync(path, Buffer.concat([length, padded, ...parts]));
}
