/**
 * A packing on disk: what a later process needs to go on with the same prompt, so that files edited meanwhile become later
 * versions and the saved state of everything before them serves.
 *
 * One file, replaced whole: `LVPACK1\n`, SHA-256 of the rest (32 bytes), length of the JSON (4 bytes, little-endian), the
 * JSON, and the token ids of base and overlay as 32-bit integers. What does not read back exactly is as good as absent.
 */
import { createHash, randomBytes } from 'node:crypto';
import { existsSync, promises as fs } from 'node:fs';
import path from 'node:path';
import { plainFile } from '../plainFile';
import { patiently } from '../platform/patiently';
import { frameFingerprint } from '../prompt/frame';
import type { Entry, LeftOutFile, Packing } from '../prompt/packing';
import { concat } from '../prompt/template';

const name = 'packing.bin';
const magic = Buffer.from('LVPACK1\n');

type SavedEntry = Omit<Entry, 'absolutePath' | 'text' | 'base64KiB'>;

interface Header {
  frame: string;
  baseTokens: number;
  basePaths: string[];
  /** Absent in files of before they were kept. */
  baseSizes?: number[];
  overlay: { path: string; tokens: number }[];
  /** Absent in files of before it was counted. */
  dead?: number;
  /** As `dead`. */
  budget?: number;
  entries: SavedEntry[];
  leftOut: LeftOutFile[];
}

function digest(...parts: Uint8Array[]): Buffer {
  const hash = createHash('sha256');
  for (const part of parts) hash.update(part);
  return hash.digest();
}

const freshName = /^packing\.bin\.[0-9a-f]{12}\.new$/;
/** Nobody writes one for so long. */
const abandonedMs = 3_600_000;

/** Deletes what processes left that were ended while they wrote. */
async function removeAbandoned(folder: string): Promise<void> {
  for (const file of await fs.readdir(folder)) {
    if (!freshName.test(file)) continue;
    const status = await fs.lstat(path.join(folder, file)).catch(() => undefined);
    if (status && Math.abs(Date.now() - status.mtimeMs) > abandonedMs)
      await fs.rm(path.join(folder, file), { force: true });
  }
}

/** Throws Node's errors where the folder cannot be written to. */
export async function writePacking(folder: string, packing: Packing): Promise<void> {
  const { base, basePaths, baseSizes, overlay, dead, budget, entries, leftOut } = packing;
  const header: Header = {
    frame: frameFingerprint(),
    baseTokens: base.length,
    basePaths,
    baseSizes,
    overlay: overlay.map(({ path, ids }) => ({ path, tokens: ids.length })),
    dead,
    budget,
    entries: [...entries.values()].map(({ absolutePath: _a, text: _t, base64KiB: _b, ...entry }) => entry),
    leftOut,
  };
  const json = Buffer.from(JSON.stringify(header));
  const ids = concat(base, ...overlay.map((part) => part.ids));
  const size = Buffer.alloc(4);
  size.writeUInt32LE(json.length);
  const tokens = new Uint8Array(ids.buffer, ids.byteOffset, ids.byteLength);
  await removeAbandoned(folder);
  // Another window may write at the same time.
  const fresh = path.join(folder, `${name}.${randomBytes(6).toString('hex')}.new`);
  try {
    const file = await fs.open(fresh, 'wx', 0o600);
    try {
      // Whole, or an error: `write` stops without one where the disk is full.
      for (const part of [magic, digest(size, json, tokens), size, json, tokens]) await file.writeFile(part);
      await file.sync();
    } finally {
      await file.close();
    }
    await patiently(() => fs.rename(fresh, path.join(folder, name)));
  } catch (error) {
    await fs.rm(fresh, { force: true });
    throw error;
  }
}

export function hasPacking(folder: string): boolean {
  return existsSync(path.join(folder, name));
}

/** Undefined where there is none, or none of this version, this frame and this vocabulary. */
export async function readPacking(folder: string, vocabularySize: number): Promise<Packing | undefined> {
  const bytes = await fs.readFile(path.join(folder, name), plainFile).catch(() => undefined);
  if (!bytes?.subarray(0, magic.length).equals(magic)) return undefined;
  const body = bytes.subarray(magic.length + 32);
  if (!digest(body).equals(bytes.subarray(magic.length, magic.length + 32))) return undefined;
  try {
    const end = 4 + body.readUInt32LE(0);
    const header = checkHeader(JSON.parse(body.toString('utf8', 4, end)));
    // Copied: Int32Array needs an aligned offset, and whole numbers.
    const ids = new Int32Array(Uint8Array.from(body.subarray(end)).buffer);
    return header && assemble(header, ids, vocabularySize);
  } catch {
    return undefined;
  }
}

const isCount = (value: unknown): value is number => Number.isSafeInteger(value) && (value as number) >= 0;
const isText = (value: unknown): value is string => typeof value === 'string';
const isObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null;

function checkHeader(value: unknown): Header | undefined {
  if (!isObject(value) || value.frame !== frameFingerprint() || !isCount(value.baseTokens)) return undefined;
  const { basePaths, baseSizes = [], overlay, dead = 0, budget = 0, entries, leftOut } = value;
  const lists = [basePaths, baseSizes, overlay, entries, leftOut];
  if (!lists.every(Array.isArray)) return undefined;
  const sound =
    isCount(dead) &&
    isCount(budget) &&
    (basePaths as unknown[]).every(isText) &&
    (baseSizes as unknown[]).every(isCount) &&
    (overlay as unknown[]).every((part) => isObject(part) && isText(part.path) && isCount(part.tokens)) &&
    (entries as unknown[]).every(
      (entry) =>
        isObject(entry) &&
        isText(entry.path) &&
        isText(entry.hash) &&
        isCount(entry.tokens) &&
        isCount(entry.version) &&
        isCount(entry.bytes) &&
        typeof entry.ctimeMs === 'number',
    ) &&
    (leftOut as unknown[]).every((file) => isObject(file) && isText(file.path) && isText(file.reason));
  return sound ? (value as unknown as Header) : undefined;
}

function assemble(header: Header, ids: Int32Array, vocabularySize: number): Packing | undefined {
  const total = header.overlay.reduce((sum, { tokens }) => sum + tokens, header.baseTokens);
  if (total !== ids.length || header.baseTokens === 0) return undefined;
  const { baseSizes = [] } = header;
  if (baseSizes.reduce((sum, tokens) => sum + tokens, 0) > header.baseTokens) return undefined;
  if (!ids.every((id) => id >= 0 && id < vocabularySize)) return undefined;
  let at = header.baseTokens;
  return {
    base: ids.slice(0, at),
    basePaths: header.basePaths,
    baseSizes,
    overlay: header.overlay.map(({ path, tokens }) => ({ path, ids: ids.slice(at, (at += tokens)) })),
    dead: header.dead ?? 0,
    budget: header.budget ?? 0,
    entries: new Map(
      header.entries.map(({ path, hash, tokens, version, bytes, ctimeMs }) => [
        path,
        { path, absolutePath: '', hash, tokens, version, bytes, ctimeMs },
      ]),
    ),
    leftOut: header.leftOut.map(({ path, reason, detail, bytes, ctimeMs }) => ({
      path,
      reason,
      ...(isText(detail) && { detail }),
      ...(isCount(bytes) && typeof ctimeMs === 'number' && { bytes, ctimeMs }),
    })),
  };
}
