/**
 * Longview beside llama.cpp: the same model file, the same tokens, the same run, turn about.
 * `npm run bench:llama -- --prefill 2048,16384 --decode 64`
 */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { readRepository } from '../eval/cut';
import { getSources } from '../eval/getSources';
import { projectRoot } from '../eval/serverClient';
import type { Job, JobResult } from './job';
import { loadLlamaCpp } from './llamaCppPackage';
import { machine, median } from './machine';
import { bundleRunner, runJob } from './runJob';
import { decodeBytes, geometryOf, prefillFlop, type Geometry } from './work';

const usage = `npm run bench:llama -- [options]
  --prefill N,N  prompt lengths in tokens (default 2048,16384)
  --decode N     tokens to generate behind each prompt (default 64)
  --runs N       of each engine and length, turn about; medians are shown (default 3)
  --model M      a .gguf file (default: the built-in model)
  --isa X        instruction set of Longview (scalar, avx2, avxvnni, avx512, avx512bf16, amx; default: the best)
  --threads N    of both (default 2)
  --batch N      llama.cpp's batch (default 512)
  --only X       longview or llama: one of the two alone`;

const { values } = parseArgs({
  options: {
    prefill: { type: 'string', default: '2048,16384' },
    decode: { type: 'string', default: '64' },
    runs: { type: 'string', default: '3' },
    model: { type: 'string', default: join(projectRoot, 'media/model/longview-135m-64k.Q5_0.gguf') },
    isa: { type: 'string' },
    threads: { type: 'string', default: '2' },
    batch: { type: 'string', default: '512' },
    only: { type: 'string' },
    help: { type: 'boolean', default: false },
  },
});

/** Real text: the sources of Flask and pytest. Both engines get these ids. */
async function readModel(path: string, tokens: number): Promise<{ ids: number[]; geometry: Geometry }> {
  const model = await (await loadLlamaCpp(1)).loadModel({ modelPath: path, gpuLayers: 0, useMmap: true });
  const text = ['flask', 'pytest']
    .flatMap((name) => readRepository(getSources(name)))
    .map((file) => `<file path="${file.path}">\n${file.text}</file>\n`)
    .join('');
  const ids = model.tokenize(text.slice(0, tokens * 8)).slice(0, tokens);
  if (ids.length < tokens)
    throw new Error(`The sources give ${ids.length} tokens; --prefill asks for ${tokens}.`);
  return { ids: [...ids], geometry: geometryOf(model, path) };
}

interface Figures {
  prefillTokensPerSecond: number;
  decodeTokensPerSecond: number;
  peakBytes: number;
}

function figuresOf(results: JobResult[], prefill: number): Figures {
  const step = (result: JobResult) => result.steps[0]!;
  return {
    prefillTokensPerSecond: median(results.map((r) => prefill / step(r).firstTokenSeconds)),
    decodeTokensPerSecond: median(results.map((r) => (step(r).tokens.length - 1) / step(r).decodeSeconds)),
    peakBytes: median(results.map((r) => r.peakBytes)),
  };
}

/** Both engines' results at one length, by turns so that a slow minute of the machine hits both. */
async function measure(prefill: number, ids: number[], bundles: { name: string; bundle: string }[]) {
  const results = new Map<string, JobResult[]>(bundles.map(({ name }) => [name, []]));
  const job: Job = {
    model: values.model,
    threads: Number(values.threads),
    window: prefill + Number(values.decode) + 1,
    isa: values.isa,
    batch: Number(values.batch),
    warmUp: ids.slice(-128),
    steps: [{ keep: 0, tokens: ids.slice(0, prefill), generate: Number(values.decode), stop: [] }],
  };
  for (let run = 0; run < Number(values.runs); run++)
    for (const { name, bundle } of bundles) {
      const result = await runJob(bundle, job);
      results.get(name)!.push(result);
      const { prefillTokensPerSecond: p, decodeTokensPerSecond: d } = figuresOf([result], prefill);
      process.stderr.write(`  ${name} ${prefill}: prefill ${p.toFixed(1)}/s, decode ${d.toFixed(1)}/s\n`);
    }
  return results;
}

async function main() {
  if (values.help) return console.log(usage);
  if (!existsSync(values.model)) throw new Error(`There is no model file ${values.model}.`);
  const lengths = values.prefill.split(',').map(Number);
  const { ids, geometry } = await readModel(values.model, Math.max(...lengths) + 128);
  const bundles: { name: string; bundle: string }[] = [];
  if (values.only !== 'llama')
    bundles.push({ name: 'Longview', bundle: await bundleRunner('longviewRunner') });
  if (values.only !== 'longview')
    bundles.push({ name: 'llama.cpp', bundle: await bundleRunner('llamaCppRunner') });

  console.log(
    `${machine()}\n${values.model.split('/').pop()}, ${values.threads} threads, median of ${values.runs}\n`,
  );
  const engines = new Set<string>();
  const rows: string[] = [];
  for (const length of lengths) {
    const results = await measure(length, ids, bundles);
    for (const list of results.values()) engines.add(list[0]!.engine);
    const [a, b] = bundles.map(({ name }) => figuresOf(results.get(name)!, length));
    const row = (what: string, of: (figures: Figures) => number, digits = 1) => {
      const cells = [a, b].map((figures) => (figures ? of(figures).toFixed(digits) : '–'));
      const ratio = a && b ? `${(of(a) / of(b)).toFixed(2)} ×` : '–';
      rows.push(`| ${what} | ${bundles.map((_, i) => cells[i]).join(' | ')} | ${ratio} |`);
    };
    const gflop = prefillFlop(geometry, length) / 1e9;
    const megabytes = decodeBytes(geometry, length + Number(values.decode) / 2) / 1e6;
    row(`prefill of ${length}, tokens/s`, (f) => f.prefillTokensPerSecond);
    row(`– ${gflop.toFixed(0)} GFLOP, GFLOP/s`, (f) => (gflop * f.prefillTokensPerSecond) / length, 0);
    row(`decode behind ${length}, tokens/s`, (f) => f.decodeTokensPerSecond);
    row(`– ${megabytes.toFixed(0)} MB a token, GB/s`, (f) => (megabytes * f.decodeTokensPerSecond) / 1000);
    row(`peak memory of the process, MiB`, (f) => f.peakBytes / 2 ** 20, 0);
  }
  const names = bundles.map(({ name }) => name).join(' | ');
  console.log(`| | ${names} | ratio |\n|---|${'---|'.repeat(bundles.length + 1)}\n${rows.join('\n')}\n`);
  for (const engine of engines) console.log(`- ${engine}`);
}

main().then(
  () => process.exit(), // llama.cpp's threads keep Node alive
  (error: unknown) => {
    console.error(error instanceof Error ? error.message : error);
    process.exit(1);
  },
);
