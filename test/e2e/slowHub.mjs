// A hub on this machine that sends the first part of any file and then nothing more, until whoever asked goes away.
import { Buffer } from 'node:buffer';
import { createServer } from 'node:http';

const size = 5_000_000;
const part = 1_000_000;

/** Offsets that were asked for, one for each download. */
export const downloads = [];

/** Returns its address. */
export function startHub() {
  const hub = createServer(({ method, headers }, response) => {
    if (method === 'HEAD')
      return response.writeHead(200, { 'x-linked-size': size, 'x-linked-etag': `"${'0'.repeat(64)}"` }).end();
    const from = Number(/bytes=(\d+)-/.exec(headers.range ?? '')?.[1] ?? 0);
    downloads.push(from);
    response.writeHead(from > 0 ? 206 : 200, { 'content-length': size - from });
    response.write(Buffer.alloc(part));
  });
  hub.unref();
  return new Promise((resolve) => {
    hub.listen(0, '127.0.0.1', () => resolve(`http://127.0.0.1:${hub.address().port}`));
  });
}
