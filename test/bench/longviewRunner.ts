/** Runs one job on our own engine, in a process of its own, through the addon that the server uses. */
import { openNativeEngine } from '../../server/engine/nativeEngine';
import { peakBytes, runSteps, serveJob } from './job';

serveJob(async (job) => {
  const engine = await openNativeEngine(job.model, { device: 'cpu', threads: job.threads, isa: job.isa });
  const context = await engine.createContext();
  const steppable = {
    keep: (length: number) => context.truncate(Math.min(length, context.length)),
    async *generate(tokens: number[], count: number, stop: number[]) {
      await context.extend(Int32Array.from(tokens));
      const queue: number[] = [];
      let wake = () => {};
      const finished = context
        .generate({
          maxTokens: count,
          stopTokens: stop,
          guess: false, // as llama.cpp does it
          onToken: (token) => {
            queue.push(token);
            wake();
          },
        })
        .then(() => true);
      for (let done = false; !done || queue.length > 0;) {
        while (queue.length > 0) yield queue.shift()!;
        done = await Promise.race([finished, new Promise<false>((resolve) => (wake = () => resolve(false)))]);
      }
    },
  };
  await runSteps([{ keep: 0, tokens: job.warmUp, generate: 2, stop: [] }], steppable);
  const steps = await runSteps(job.steps, steppable);
  const name = `Longview, ${engine.device.name} (${engine.device.isa}), bf16 KV`;
  return { engine: name, steps, peakBytes: peakBytes() };
});
