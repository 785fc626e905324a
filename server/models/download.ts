/**
 * Downloads a model file from the Hugging Face hub: resumed where it stopped, checked against the hub's own SHA-256, moved
 * into place only when whole. HF_ENDPOINT names another hub that speaks the same routes.
 */
import { createHash, type Hash } from 'node:crypto';
import { createReadStream, promises as fs } from 'node:fs';
import path from 'node:path';
import { LongviewError, throwIfAborted } from '../errors';
import { patiently } from '../platform/patiently';
import type { DownloadProgress } from '../protocol';

export interface DownloadOptions {
  signal?: AbortSignal;
  onProgress?: (progress: DownloadProgress) => void;
  /** Base URL of the hub. */
  endpoint?: string;
}

interface HubFile {
  repository: string;
  file: string;
}

/** Where a file lies when it is whole. */
const placeOf = ({ repository, file }: HubFile, modelsFolder: string) =>
  path.join(modelsFolder, ...repository.split('/'), file);

/** What is there of a file that was not downloaded to its end. */
export async function partOf(
  file: HubFile,
  modelsFolder: string,
): Promise<{ path: string; bytes: number } | undefined> {
  const part = `${placeOf(file, modelsFolder)}.part`;
  const bytes = await lengthOf(part);
  return bytes > 0 ? { path: part, bytes } : undefined;
}

/** Throws LongviewError `download_failed` while another process writes to it. */
export async function deletePart(part: string): Promise<void> {
  const unlock = await lockPart(part);
  await fs.rm(part, { force: true }).finally(unlock);
}

const failed = (what: string, cause?: unknown) =>
  new LongviewError(
    'download_failed',
    `The download failed: ${what}. Start it again; what is there is kept.`,
    {
      cause,
    },
  );

/**
 * Returns the path of the whole file: `<modelsFolder>/<repository>/<file>`. Throws LongviewError `download_failed`,
 * `checksum_mismatch` (the part file is deleted), `disk_full`, `cancelled` (the part file is kept).
 */
export async function downloadModel(
  hubFile: HubFile,
  modelsFolder: string,
  options: DownloadOptions = {},
): Promise<string> {
  const endpoint = options.endpoint ?? process.env.HF_ENDPOINT ?? 'https://huggingface.co';
  const { repository, file } = hubFile;
  const url = `${endpoint}/${repository}/resolve/main/${file}`;
  const target = placeOf(hubFile, modelsFolder);
  const part = `${target}.part`;
  const { size, sha256 } = await describe(url, options.signal);
  await fs.mkdir(path.dirname(target), { recursive: true });
  if ((await lengthOf(target)) === size) return target;
  const unlock = await lockPart(part);
  try {
    await fetchWhole(url, part, size, sha256, options);
    await patiently(() => fs.rename(part, target));
  } finally {
    await unlock();
  }
  return target;
}

/** One process at a time writes to a part. What a process left that ended does not count. */
async function lockPart(part: string): Promise<() => Promise<void>> {
  const lock = `${part}.lock`;
  for (let attempt = 1; ; attempt++) {
    try {
      await fs.writeFile(lock, String(process.pid), { flag: 'wx' });
      return () => fs.rm(lock, { force: true });
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw toError(error);
    }
    const holder = Number(await fs.readFile(lock, 'utf8').catch(() => ''));
    if (attempt > 1 || isRunning(holder))
      throw new LongviewError(
        'download_failed',
        `Another window is downloading this model. Wait for it; if there is none, delete ${lock}.`,
      );
    await fs.rm(lock, { force: true });
  }
}

function isRunning(id: number): boolean {
  try {
    return id > 0 && process.kill(id, 0);
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM';
  }
}

/** Brings the part to its whole length and checks it. */
async function fetchWhole(
  url: string,
  part: string,
  size: number,
  sha256: string,
  { signal, onProgress }: DownloadOptions,
): Promise<void> {
  let have = await lengthOf(part);
  if (have > size) {
    await fs.rm(part);
    have = 0;
  }
  const folder = path.dirname(part);
  const file = path.basename(part, '.part');
  const { bavail, bsize } = await fs.statfs(folder);
  if (bavail * bsize < size - have)
    throw new LongviewError(
      'disk_full',
      `${file} needs ${gigabytes(size - have)} more on the disk of ${folder}, which has ${gigabytes(bavail * bsize)}. Make room, or choose a smaller model.`,
    );
  let hash = createHash('sha256');
  if (have > 0) for await (const chunk of createReadStream(part)) hash.update(chunk as Buffer);
  if (have < size) hash = await fetchRest(url, part, have, size, hash, signal, onProgress);
  const actual = hash.digest('hex');
  if (actual !== sha256) {
    await fs.rm(part);
    throw new LongviewError(
      'checksum_mismatch',
      `${file} arrived damaged: its SHA-256 is not the hub's. It was deleted; download it again.`,
    );
  }
}

/** Size and SHA-256, by the headers that the hub sends for files in its large-file store. */
async function describe(url: string, signal?: AbortSignal): Promise<{ size: number; sha256: string }> {
  throwIfAborted(signal);
  const response = await request(url, { method: 'HEAD', redirect: 'manual', signal });
  if (response.status >= 400) throw failed(`the hub answered ${response.status} for ${url}`);
  const size = Number(response.headers.get('x-linked-size') ?? response.headers.get('content-length'));
  const sha256 = (response.headers.get('x-linked-etag') ?? response.headers.get('etag') ?? '').replace(
    /^(W\/)?"|"$/g,
    '',
  );
  if (!Number.isSafeInteger(size) || size <= 0 || !/^[0-9a-f]{64}$/.test(sha256))
    throw failed(`the hub gives no size and SHA-256 for ${url}`);
  return { size, sha256 };
}

/** Returns the hash of the whole: `hash`, of what is there, or another one where the hub began at the beginning. */
async function fetchRest(
  url: string,
  part: string,
  have: number,
  size: number,
  hash: Hash,
  signal: AbortSignal | undefined,
  onProgress: DownloadOptions['onProgress'],
): Promise<Hash> {
  const response = await request(url, { headers: have > 0 ? { range: `bytes=${have}-` } : {}, signal });
  if (!response.ok || !response.body) throw failed(`the hub answered ${response.status}`);
  const goesOn = response.status === 206;
  const whole = goesOn ? hash : createHash('sha256');
  const output = await fs.open(part, goesOn ? 'a' : 'w');
  try {
    let done = goesOn ? have : 0;
    for await (const chunk of response.body as unknown as AsyncIterable<Uint8Array>) {
      throwIfAborted(signal);
      done += chunk.length;
      if (done > size) throw failed('more arrived than the hub announced');
      whole.update(chunk);
      await output.writeFile(chunk); // `write` may write a part of it
      onProgress?.({ done, total: size });
    }
    if (done < size) throw failed(`the connection ended at ${done} of ${size} bytes`);
    await output.sync();
    return whole;
  } catch (error) {
    throw toError(error, signal);
  } finally {
    await output.close();
  }
}

async function request(url: string, init: RequestInit): Promise<Response> {
  try {
    return await fetch(url, init);
  } catch (error) {
    throw toError(error, init.signal ?? undefined);
  }
}

function toError(error: unknown, signal?: AbortSignal): LongviewError {
  if (error instanceof LongviewError) return error;
  if (signal?.aborted) return new LongviewError('cancelled', 'Stopped.');
  const { code, cause } = error as { code?: string; cause?: { code?: string; message?: string } };
  if (code === 'ENOSPC')
    return new LongviewError('disk_full', 'The disk is full. Make room and start the download again.');
  return failed(cause?.message || cause?.code || (error as Error).message, error);
}

async function lengthOf(file: string): Promise<number> {
  return (await fs.stat(file).catch(() => undefined))?.size ?? 0;
}

function gigabytes(bytes: number): string {
  return `${(bytes / 1e9).toFixed(1)} GB`;
}
