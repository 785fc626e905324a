/** `npx tsx test/bench/scan.ts [FILES]`: walks a folder of so many small files, and says how long and how smoothly. */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { scanFolder } from '../../server/workspace/scan';

const count = Number(process.argv[2] ?? 100_000);
const folder = mkdtempSync(path.join(tmpdir(), 'longview-scan-'));
async function main() {
  try {
    for (let i = 0; i < count; i++) {
      const inner = path.join(folder, `part${i % 100}`, `of${i % 1000}`);
      if (i < 1000) mkdirSync(inner, { recursive: true });
      writeFileSync(path.join(inner, `file${i}.ts`), `export const value${i} = ${i};\n`);
    }
    const delay = monitorEventLoopDelay({ resolution: 1 });
    const before = process.memoryUsage().rss;
    delay.enable();
    const start = performance.now();
    const { files } = await scanFolder(folder);
    const seconds = (performance.now() - start) / 1000;
    delay.disable();
    const grown = (process.memoryUsage().rss - before) / 2 ** 20;
    console.log(
      `${files.length} files: ${seconds.toFixed(2)} s, longest pause ${(delay.max / 1e6).toFixed(0)} ms, ${grown.toFixed(0)} MiB more memory`,
    );
    const stop = new AbortController();
    let stoppedAt = 0;
    setTimeout(() => {
      stoppedAt = performance.now();
      stop.abort();
    }, 100);
    await scanFolder(folder, { signal: stop.signal }).catch(() => undefined);
    console.log(`stopped within ${(performance.now() - stoppedAt).toFixed(0)} ms`);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

void main();
