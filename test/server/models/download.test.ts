/** Downloads against a server on this machine that speaks the hub's routes. */
import { spawnSync } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, statfsSync, writeFileSync } from 'node:fs';
import { createServer, type IncomingMessage, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { deletePart, downloadModel, partOf } from '../../../server/models/download';

const content = randomBytes(3_000_000);
const entry = { repository: 'maker/model', file: 'model.gguf' };
let hub: Server;
let endpoint: string;
let folder: string;
let target: string;
/** What the hub does wrong, and what it was asked. */
let fault: {
  cutAt?: number;
  status?: number;
  cdnStatus?: number;
  hash?: string;
  size?: number;
  noRanges?: boolean;
} = {};
let requests: { method?: string; range?: string }[] = [];

function respond(request: IncomingMessage, response: import('node:http').ServerResponse) {
  const { method, url, headers } = request;
  requests.push({ method, range: headers.range });
  if (url === '/cdn') {
    if (fault.cdnStatus) return response.writeHead(fault.cdnStatus).end('Try again later.');
    const from = fault.noRanges ? 0 : Number(/bytes=(\d+)-/.exec(headers.range ?? '')?.[1] ?? 0);
    response.writeHead(from > 0 ? 206 : 200, { 'content-length': content.length - from });
    if (fault.cutAt === undefined) return response.end(content.subarray(from));
    response.write(content.subarray(from, fault.cutAt), () => response.destroy());
    return;
  }
  if (url !== '/maker/model/resolve/main/model.gguf') return response.writeHead(404).end();
  if (fault.status) return response.writeHead(fault.status).end();
  response.writeHead(302, {
    location: `${endpoint}/cdn`,
    'x-linked-size': fault.size ?? content.length,
    'x-linked-etag': `"${fault.hash ?? createHash('sha256').update(content).digest('hex')}"`,
  });
  response.end();
}

beforeAll(async () => {
  hub = createServer(respond);
  await new Promise<void>((done) => hub.listen(0, '127.0.0.1', done));
  endpoint = `http://127.0.0.1:${(hub.address() as AddressInfo).port}`;
});
afterAll(() => hub.close());
beforeEach(() => {
  folder = mkdtempSync(path.join(tmpdir(), 'longview-models-'));
  target = path.join(folder, 'maker/model/model.gguf');
  fault = {};
  requests = [];
});

describe('downloadModel', () => {
  it('brings the file, with progress', async () => {
    const seen: number[] = [];
    const file = await downloadModel(entry, folder, { endpoint, onProgress: ({ done }) => seen.push(done) });
    expect(file).toBe(target);
    expect(readFileSync(file).equals(content)).toBe(true);
    expect(seen.at(-1)).toBe(content.length);
    expect(existsSync(`${file}.part`)).toBe(false);
  });

  it('goes on where it was cut', async () => {
    fault = { cutAt: 1_000_000 };
    const cut = downloadModel(entry, folder, { endpoint });
    await expect(cut).rejects.toMatchObject({ code: 'download_failed' });
    const have = readFileSync(`${target}.part`).length;
    expect(have).toBeGreaterThan(0);
    fault = {};
    await downloadModel(entry, folder, { endpoint });
    expect(requests.at(-1)?.range).toBe(`bytes=${have}-`);
    expect(readFileSync(target).equals(content)).toBe(true);
  });

  it('keeps its part where a hub answers with an error', async () => {
    mkdirSync(path.dirname(target), { recursive: true });
    writeFileSync(`${target}.part`, content.subarray(0, 1_000_000));
    fault = { cdnStatus: 503 };
    await expect(downloadModel(entry, folder, { endpoint })).rejects.toThrow(/answered 503/);
    expect(readFileSync(`${target}.part`).equals(content.subarray(0, 1_000_000))).toBe(true);
  });

  it('starts again where a hub cannot go on', async () => {
    mkdirSync(path.dirname(target), { recursive: true });
    writeFileSync(`${target}.part`, content.subarray(0, 1_000_000));
    fault = { noRanges: true };
    await downloadModel(entry, folder, { endpoint });
    expect(requests.at(-1)?.range).toBe('bytes=1000000-');
    expect(readFileSync(target).equals(content)).toBe(true);
  });

  it('leaves a part to the one that writes it, but not to one that is gone', async () => {
    const lock = `${target}.part.lock`;
    mkdirSync(path.dirname(target), { recursive: true });
    writeFileSync(lock, String(process.ppid));
    await expect(downloadModel(entry, folder, { endpoint })).rejects.toThrow(/Another window/);
    const { pid } = spawnSync(process.execPath, ['--version']);
    writeFileSync(lock, String(pid));
    await downloadModel(entry, folder, { endpoint });
    expect(readFileSync(target).equals(content)).toBe(true);
    expect(existsSync(lock)).toBe(false);
  });

  it('keeps its part when it is stopped', async () => {
    const stop = new AbortController();
    const stopped = downloadModel(entry, folder, {
      endpoint,
      signal: stop.signal,
      onProgress: () => stop.abort(),
    });
    await expect(stopped).rejects.toMatchObject({ code: 'cancelled' });
    expect(readFileSync(`${target}.part`).length).toBeGreaterThan(0);
  });

  it('tells of its part, which can be deleted when no one writes to it', async () => {
    expect(await partOf(entry, folder)).toBeUndefined();
    fault.cutAt = 1_000_000;
    await expect(downloadModel(entry, folder, { endpoint })).rejects.toThrow();
    const part = `${target}.part`;
    // What was under way when the connection broke may not have come.
    const bytes = readFileSync(part).length;
    expect(bytes).toBeGreaterThan(0);
    expect(await partOf(entry, folder)).toEqual({ path: part, bytes });
    writeFileSync(`${part}.lock`, String(process.pid));
    await expect(deletePart(part)).rejects.toMatchObject({ code: 'download_failed' });
    expect(existsSync(part)).toBe(true);
    writeFileSync(`${part}.lock`, '');
    await deletePart(part);
    expect([existsSync(part), existsSync(`${part}.lock`)]).toEqual([false, false]);
  });

  it('deletes what is not what the hub announced', async () => {
    fault = { hash: '0'.repeat(64) };
    const wrong = downloadModel(entry, folder, { endpoint });
    await expect(wrong).rejects.toMatchObject({ code: 'checksum_mismatch' });
    expect(existsSync(target) || existsSync(`${target}.part`)).toBe(false);
  });

  it('starts again from nothing when the part is longer than the file', async () => {
    mkdirSync(path.dirname(target), { recursive: true });
    writeFileSync(`${target}.part`, Buffer.alloc(content.length + 1));
    await downloadModel(entry, folder, { endpoint });
    expect(readFileSync(target).equals(content)).toBe(true);
  });

  it('says what is wrong: the hub, no hash, no room, no network', async () => {
    fault = { status: 401 };
    await expect(downloadModel(entry, folder, { endpoint })).rejects.toThrow(/answered 401/);
    fault = { hash: 'not-a-hash' };
    await expect(downloadModel(entry, folder, { endpoint })).rejects.toThrow(/no size and SHA-256/);
    fault = { size: Number.MAX_SAFE_INTEGER };
    await expect(downloadModel(entry, folder, { endpoint })).rejects.toMatchObject({ code: 'disk_full' });
    const nowhere = downloadModel(entry, folder, { endpoint: 'http://127.0.0.1:1' });
    await expect(nowhere).rejects.toMatchObject({ code: 'download_failed' });
  });

  it('takes no file for whole whose end found no room', async ({ skip }) => {
    const mount = spawnSync('mount', ['-t', 'tmpfs', '-o', 'size=4m', 'tmpfs', folder]);
    skip(mount.status !== 0, 'a small file system can be mounted by root alone');
    try {
      // Someone else takes the rest, but for all of the file without its last page: a part of the last piece still fits.
      const fill = (done: number) => {
        const { bavail, bsize } = statfsSync(folder);
        const pages = (bytes: number) => Math.ceil(bytes / bsize);
        const left = pages(content.length) - pages(done) - 1;
        writeFileSync(path.join(folder, 'other'), Buffer.alloc((bavail - left) * bsize));
      };
      let filled = false;
      const onProgress = ({ done }: { done: number }) => {
        if (!filled) fill(done);
        filled = true;
      };
      const download = downloadModel(entry, folder, { endpoint, onProgress });
      await expect(download).rejects.toMatchObject({ code: 'disk_full' });
      expect(existsSync(target)).toBe(false);
    } finally {
      spawnSync('umount', [folder]);
    }
  });

  it('does nothing when the file is there', async () => {
    await downloadModel(entry, folder, { endpoint });
    requests = [];
    await downloadModel(entry, folder, { endpoint });
    expect(requests.map(({ method }) => method)).toEqual(['HEAD']);
  });
});
