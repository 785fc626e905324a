/**
 * Tensors in a safetensors file: u64 little-endian header length, JSON header, data. Files come from anywhere, so every
 * number in a header is checked before it is used.
 */
import { closeSync, fstatSync, openSync, readSync, writeSync } from 'node:fs';

const arrays = { I32: Int32Array, U8: Uint8Array };
type Dtype = keyof typeof arrays;
type Elements<D extends Dtype> = InstanceType<(typeof arrays)[D]>;

/** A tensor that stays in its file, which may be larger than memory and than what one array holds. */
export interface StoredTensor<D extends Dtype> {
  shape: number[];
  /** Elements `from` to `to - 1` of all, row after row. Throws where the file has become shorter. */
  read(from: number, to: number): Elements<D>;
}

/** What one call to the system reads or writes at most: 2 GiB are too much for it. */
const bytesAtOnce = 2 ** 30;
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

/**
 * Opens a file for as long as `use` takes, which gets the named tensors and the file's metadata. Throws a sentence for what is
 * missing, damaged or of another type.
 */
export function withSafetensors<const Wanted extends Record<string, Dtype>, T>(
  path: string,
  wanted: Wanted,
  use: (
    tensors: { [Name in keyof Wanted]: StoredTensor<Wanted[Name]> },
    metadata: Record<string, string>,
  ) => T,
): T {
  const fail = (what: string): never => {
    // Names and shapes are the file's own words, of any length.
    throw new Error(`${path}: ${what.length > 500 ? `${what.slice(0, 500)}…` : what}`);
  };
  const file = openSync(path, 'r');
  try {
    const stat = fstatSync(file);
    if (!stat.isFile()) fail('not a file');
    const { size } = stat;
    const fill = (bytes: Uint8Array, at: number) => {
      for (let done = 0; done < bytes.length;) {
        const got = readSync(file, bytes, done, Math.min(bytes.length - done, bytesAtOnce), at + done);
        if (got === 0) fail('the file ended while it was read');
        done += got;
      }
      return bytes;
    };
    if (size < 8) fail(`not a safetensors file: ${size} bytes`);
    const first = Buffer.alloc(8);
    fill(first, 0);
    const length = first.readBigUInt64LE();
    if (length > largestHeader || length > size - 8)
      fail(`not a safetensors file: a header of ${length} bytes in a file of ${size}`);
    const start = 8 + Number(length);
    const header = parseHeader(new TextDecoder().decode(fill(Buffer.alloc(Number(length)), 8)), fail);

    const tensors = Object.entries(wanted).map(([name, dtype]) => {
      if (!Object.hasOwn(header, name))
        return fail(`no tensor \`${name}\`; there are: ${Object.keys(header).slice(0, 20).join(', ')}`);
      const entry = header[name];
      if (!isEntry(entry)) return fail(`the header's entry of \`${name}\` is not a tensor's`);
      if (entry.dtype !== dtype) return fail(`\`${name}\` is ${entry.dtype}, not ${dtype}`);
      const [begin, end] = entry.data_offsets;
      const { BYTES_PER_ELEMENT: each } = arrays[dtype];
      const bytes = entry.shape.reduce((product, x) => product * x, each);
      if (begin > end || end > size - start || end - begin !== bytes)
        return fail(
          `\`${name}\` [${entry.shape.join(', ')}] does not fit bytes ${begin} to ${end} of ${size - start}`,
        );
      const read = (from: number, to: number) => {
        const elements = new arrays[dtype](to - from);
        fill(new Uint8Array(elements.buffer), start + begin + from * each);
        return elements;
      };
      return [name, { shape: entry.shape, read }];
    });
    const { __metadata__: metadata } = header;
    const strings = Object.entries(metadata ?? {}).filter(([, v]) => typeof v === 'string');
    return use(
      Object.fromEntries(tensors) as { [Name in keyof Wanted]: StoredTensor<Wanted[Name]> },
      Object.fromEntries(strings),
    );
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
  const file = openSync(path, 'w');
  try {
    for (const part of [length, padded, ...parts])
      for (let done = 0; done < part.length;)
        done += writeSync(file, part, done, Math.min(part.length - done, bytesAtOnce));
  } finally {
    closeSync(file);
  }
}
