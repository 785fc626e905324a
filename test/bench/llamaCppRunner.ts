/** Runs one job on llama.cpp, in a process of its own. */
import { peakBytes, runSteps, serveJob } from './job';
import { loadedVariant, loadLlamaCpp } from './llamaCppPackage';

serveJob(async (job) => {
  const llama = await loadLlamaCpp(job.threads);
  const model = await llama.loadModel({ modelPath: job.model, gpuLayers: 0, useMmap: true });
  // 512, llama.cpp's own default, was as fast as 256, 1024 and 2048 within the noise, with the least memory.
  const batchSize = job.batch ?? 512;
  const options = { contextSize: job.window, batchSize, flashAttention: true, threads: job.threads };
  const sequence = (await model.createContext(options)).getSequence({ checkpoints: { max: 0 } });

  const keep = async (length: number) => {
    if (sequence.nextTokenIndex > length)
      await sequence.eraseContextTokenRanges([{ start: length, end: sequence.nextTokenIndex }]);
  };
  const engine = {
    keep,
    async *generate(tokens: number[], count: number, stop: number[]) {
      let chosen = 0;
      for await (const token of sequence.evaluate(tokens, { temperature: 0, yieldEogToken: true })) {
        if (stop.includes(token)) return;
        yield token;
        if (++chosen === count) return;
      }
    },
  };
  await runSteps([{ keep: 0, tokens: job.warmUp, generate: 2, stop: [] }], engine);
  const steps = await runSteps(job.steps, engine);
  const features = [...llama.systemInfo.matchAll(/(\w+) = 1/g)].map((match) => match[1]).join(' ');
  const release = `llama.cpp ${llama.llamaCppRelease.release}`;
  const settings = `build ${loadedVariant()} (${features}), flash attention, batch ${batchSize}, f16 KV`;
  return { engine: `${release}, ${settings}`, steps, peakBytes: peakBytes() };
});
