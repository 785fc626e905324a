/** A load that fails half-way: what the context holds by then counts, and the rest is read behind it. */
import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { expect, it } from 'vitest';
import { WorkspaceCache } from '../../../server/cache/workspaceCache';
import { openModel } from '../../../server/models/openModel';
import { builtInModel } from '../reference';

const limitMemory = (bytes: string) =>
  execFileSync('prlimit', ['--pid', String(process.pid), `--as=${bytes}:`]);

it('goes on from the pages of another context where there is no memory to look on disk', async () => {
  const parent = mkdtempSync(path.join(tmpdir(), 'longview-load-'));
  const model = await openModel(builtInModel);
  const { engine, tokenizer } = model;
  const line = tokenizer.encodeWithSpecials('A parser makes a tree of a text.\n');
  const tokens = Int32Array.from({ length: 300 }, (_, i) => line[i % line.length]!);
  const first = await engine.createContext();
  await first.extend(tokens);

  const cache = new WorkspaceCache(engine, [], { root: parent, maxBytes: 1e9 });
  mkdirSync(cache.folder, { recursive: true });
  const manifest = path.join(cache.folder, 'manifest.bin');
  writeFileSync(manifest, '');
  truncateSync(manifest, 2 ** 30);
  const second = await engine.createContext();
  const used = Number(/VmSize:\s+(\d+) kB/.exec(readFileSync('/proc/self/status', 'utf8'))![1]) * 1024;
  limitMemory(String(used + 2 ** 29));
  const grown = await cache.load(second, tokens).finally(() => limitMemory('unlimited'));
  expect(cache.saved.note).toContain('out of memory');
  expect([grown, second.length]).toEqual([256, 256]);
  await second.extend(tokens.subarray(grown));
  const answer = (context: typeof first) => context.generate({ maxTokens: 8, stopTokens: [] });
  expect((await answer(second)).tokens).toEqual((await answer(first)).tokens);
  await model.dispose();
  rmSync(parent, { recursive: true });
}, 60_000);
