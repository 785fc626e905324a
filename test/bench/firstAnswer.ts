/**
 * The main job as a user feels it: a folder is opened, a first question asked, then a second.
 * `npx tsx test/bench/firstAnswer.ts [--repo D] [--model M] [--threads 2] [--llama]`. With --llama llama.cpp reads the
 * same files in the same order and answers the same questions; on Flask and two cores that takes half an hour.
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import type { AskProgress, ContextResult } from '../../server/protocol';
import { getSources } from '../eval/getSources';
import { projectRoot, ServerClient } from '../eval/serverClient';
import { loadLlamaCpp } from './llamaCppPackage';
import { machine } from './machine';
import { bundleRunner, runJob } from './runJob';

const builtIn = join(projectRoot, 'media/model/longview-135m-64k.Q5_0.gguf');

const { values } = parseArgs({
  options: {
    repo: { type: 'string' },
    model: { type: 'string', default: builtIn },
    threads: { type: 'string', default: '2' },
    llama: { type: 'boolean', default: false },
  },
});

const questions = [
  'Where is `SecureCookieSessionInterface` defined?',
  'What is the value of `default_mimetype`?',
];

interface Row {
  promptTokens: number;
  reusedTokens: number;
  firstTokenSeconds: number;
  decodeTokensPerSecond: number;
  answer: string;
}

interface Outcome {
  engine: string;
  rows: Row[];
  peakBytes: number;
}

async function askLongview(folder: string): Promise<Outcome & { context: ContextResult }> {
  const server = await ServerClient.start(folder, {
    modelPath: values.model === builtIn ? '' : values.model,
    threads: Number(values.threads),
  });
  const rows: Row[] = [];
  let engine = '';
  for (const question of questions) {
    const { stats, answer, firstTextSeconds } = await server.ask(question, { onProgress: showProgress });
    const { promptTokens, reusedTokens, decodeTokensPerSecond } = stats;
    rows.push({
      promptTokens,
      reusedTokens,
      firstTokenSeconds: firstTextSeconds,
      decodeTokensPerSecond,
      answer,
    });
    engine = `Longview, ${stats.device}`;
  }
  const context = await server.context();
  const peak = /VmHWM:\s+(\d+) kB/.exec(readFileSync(`/proc/${server.processId}/status`, 'utf8'))?.[1];
  await server.stop();
  return { engine, rows, peakBytes: Number(peak) * 1024, context };
}

/** The same files in the same frame; the header's few tokens more or less are made up at the end of the last file. */
async function askLlamaCpp(folder: string, context: ContextResult, prefix: number): Promise<Outcome> {
  const model = await (
    await loadLlamaCpp(1)
  ).loadModel({ modelPath: values.model, gpuLayers: 0, useMmap: true });
  const text = context.files
    .map(
      ({ path }) => `<file path="${path}">\n${readFileSync(join(folder, path), 'utf8').trimEnd()}\n</file>\n`,
    )
    .join('');
  const system =
    'You answer questions about the repository below. Name where you found it as [path#symbol].\n\n';
  const prompt = [...model.tokenize(`<|im_start|>system\n${system}`, true), ...model.tokenize(text)].slice(
    0,
    prefix - 2,
  );
  prompt.push(...model.tokenize('<|im_end|>\n', true));
  const turns = questions.map((question) => [
    ...model.tokenize(`<|im_start|>user\n${question}<|im_end|>\n<|im_start|>assistant\n`, true),
  ]);
  const stop = model.tokenize('<|im_end|>', true);
  const result = await runJob(await bundleRunner('llamaCppRunner'), {
    model: values.model,
    threads: Number(values.threads),
    window: prompt.length + 1024,
    warmUp: prompt.slice(0, 128),
    steps: turns.map((turn, index) => ({
      keep: index === 0 ? 0 : prompt.length,
      tokens: index === 0 ? [...prompt, ...turn] : turn,
      generate: 256,
      stop,
    })),
  });
  const rows = result.steps.map((step, index) => ({
    promptTokens: prompt.length + turns[index]!.length,
    reusedTokens: index === 0 ? 0 : prompt.length,
    firstTokenSeconds: step.firstTokenSeconds,
    decodeTokensPerSecond: (step.tokens.length - 1) / step.decodeSeconds,
    answer: model.detokenize(step.tokens),
  }));
  return { engine: result.engine, rows, peakBytes: result.peakBytes };
}

function showProgress(progress: AskProgress): void {
  if (progress.kind !== 'phase' || !process.stderr.isTTY) return;
  process.stderr.write(`\r${progress.message}\x1b[K`);
}

async function main() {
  const folder = values.repo ?? join(getSources('flask'), 'flask');
  console.log(`${machine()}\n${values.model.split('/').pop()}, ${values.threads} threads\n`);
  const ours = await askLongview(folder);
  const { files, skipped, usedTokens } = ours.context;
  const over = skipped.filter((file) => file.reason === 'over-budget').map((file) => file.path);
  console.log(
    `${files.length} files, ${usedTokens} tokens; left out for their size: ${over.join(', ') || 'none'}\n`,
  );
  const outcomes: Outcome[] = [ours];
  if (values.llama) outcomes.push(await askLlamaCpp(folder, ours.context, ours.rows[1]!.reusedTokens));

  console.log(
    '| engine | question | prompt tokens | reused | first token, s | decode, tokens/s | peak MiB |',
  );
  console.log('|---|---|---|---|---|---|---|');
  for (const { engine, rows, peakBytes } of outcomes)
    for (const [index, row] of rows.entries()) {
      const figures = [row.promptTokens, row.reusedTokens, row.firstTokenSeconds.toFixed(2)];
      const speed = row.decodeTokensPerSecond.toFixed(1);
      const name = engine.split(/[ ,]/)[0];
      console.log(
        `| ${name} | ${index + 1} | ${figures.join(' | ')} | ${speed} | ${Math.round(peakBytes / 2 ** 20)} |`,
      );
    }
  for (const { engine, rows } of outcomes) {
    console.log(`\n${engine}`);
    for (const [index, row] of rows.entries()) console.log(`- ${questions[index]} ${row.answer.trim()}`);
  }
}

main().then(
  () => process.exit(), // llama.cpp's threads keep Node alive
  (error: unknown) => {
    console.error(error instanceof Error ? error.message : error);
    process.exit(1);
  },
);
