/**
 * What a save in the background costs an answer: the same answer alone and with a save of its repository's state begun at
 * the same moment, in turn. `npx tsx test/bench/saveCost.ts [tokens] [pairs]`; the built-in model on the CPU.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { projectRoot } from '../eval/serverClient';

process.env.LONGVIEW_ADDON ??= join(projectRoot, 'dist', 'longview.node');

const median = (values: number[]) => [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)]!;

async function main(): Promise<void> {
  const { openNativeEngine } = await import('../../server/engine/nativeEngine');
  const count = Number(process.argv[2] ?? 8192);
  const pairs = Number(process.argv[3] ?? 9);
  const model = join(projectRoot, 'media/model/longview-135m-64k.Q5_0.gguf');
  const engine = await openNativeEngine(model, { device: 'cpu' });
  const base = await engine.createContext();
  await base.extend(Int32Array.from({ length: count }, (_, i) => 1000 + ((i * 7919) % 40_000)));
  const answer = async () => {
    const fork = await base.fork();
    const start = performance.now();
    const cpu = process.cpuUsage();
    await fork.extend(
      Int32Array.from({ length: 20 }, (_, i) => 2000 + i),
      { priority: 'answer' },
    );
    await fork.generate({ maxTokens: 64, stopTokens: [] });
    const { user, system } = process.cpuUsage(cpu);
    const result = { wall: (performance.now() - start) / 1000, cpu: (user + system) / 1e6 };
    await fork.dispose();
    return result;
  };
  await answer();
  const alone: number[] = [];
  const ratios: number[] = [];
  const cpuRatios: number[] = [];
  let bytes = 0;
  for (let pair = 0; pair < pairs; pair++) {
    const folder = mkdtempSync(join(tmpdir(), 'longview-save-cost-'));
    const before = await answer();
    const saving = base.save({ folder });
    const beside = await answer();
    bytes = (await saving).writtenBytes;
    rmSync(folder, { recursive: true });
    alone.push(before.wall);
    ratios.push(beside.wall / before.wall);
    cpuRatios.push(beside.cpu / before.cpu);
  }
  const spread = [...ratios].sort((a, b) => a - b).map((ratio) => ratio.toFixed(3));
  console.log(
    `${engine.device.name}: an answer of 64 tokens behind ${count}: ${median(alone).toFixed(2)} s alone; beside a save of ` +
      `${(bytes / 1e6).toFixed(0)} MB ${median(ratios).toFixed(3)} times that, processor time ${median(cpuRatios).toFixed(3)} times ` +
      `(medians of ${pairs} pairs; wall ${spread.join(' ')})`,
  );
  await engine.dispose();
}

void main();
