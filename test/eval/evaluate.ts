/**
 * What sparse pre-fill loses: `npm run --silent eval -- --data F.safetensors --mode dense,adaptive`.
 * The same model answers the same questions after a dense and after a sparse reading, teacher-forced.
 */
import { join, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import type { EngineOptions } from '../../server/engine/engine';
import { openNativeEngine } from '../../server/engine/nativeEngine';
import { builtInModel } from '../../server/models/locate';
import { print, tell } from '../../server/terminal';
import { force, type Forced } from './forced';
import { knownPackages } from './getSources';
import { modesHelp, parseModes, type Mode } from './modes';
import { checkReadable, readData, type Data } from './sequences';
import { projectRoot } from './serverClient';
import { summarize, table, type Summary } from './summary';

const usage = `npm run --silent eval -- --data F [options]        evaluates
npm run --silent eval -- --make F --length N    makes data

  --data F       safetensors with \`tokens\` I32 [sequences, n] and \`mask\` U8 [sequences, n]: 1 on answer tokens. All before
                 the first answer of a sequence is pre-filled in the mode, but for the last 32 tokens: they and what
                 follows are dense, as questions and answers are. What follows the last answer is not run.
  --mode LIST    separated by commas (default dense,adaptive):
                 ${modesHelp}
  --model M      model file or folder (default: the built-in model)
  --profile F    head profile by which adaptive, auto and minference read, whatever their target: one of \`npm run calibrate\`,
                 or MInference's JSON (default: none, all heads alike)
  --device D     auto, cpu or cuda (default auto); in all modes the one of the dense run
  --kv-format F  auto, bf16, q8, q4 or fp8: of the KV state (default auto: as it fits); in all modes the one of the dense run
  --threads N    CPU threads (default: all)
  --sequences L  only these rows of the file: 0,2,5 (default: all); those without an answer are passed over, and that is said
  --json         a line of JSON for each mode, in the order of --mode:
    mode, n             as asked for; tokens of a sequence
    sequences, answers  evaluated; an answer is a run of masked tokens
    tokens              masked tokens
    top1                share of masked tokens whose likeliest token is the one of the dense run (1 for dense)
    exact               share of answers with the likeliest token right in every place
    nll                 mean of -ln p of the masked tokens
    meanDeltaNll, p99DeltaNll  nll less the dense run's on the same token: mean and 99th percentile
    meanAbsoluteDeltaNll       steadier than the mean: what one token gains does not make up for what another loses
    density             pairs of query and key that attention visited, of all causal ones, dense rows included
    prefillDensity      the same in the rows that were pre-filled in the mode
    seconds             pre-fill and scoring of all sequences
    worstSequence, worstBlock  largest mean difference of a sequence, of 128 positions in one
    layers              of each layer but the last in the rows that were pre-filled in the mode: density, and recall: the mass that
                        lies where dense attention puts it, by probe rows; absent where no attention was sparse
    kinds               exact by kind of question, where the file's metadata names kinds
    error               instead of all that is behind n: why a mode has no figures. It stands on stderr too, the other modes
                        are run all the same, and the exit code is 1

  --make F       writes data: packed repositories that the built-in model never saw, with conversations about them
  --length N     tokens of a sequence (8192, 16384, 32768, 65536)
  --count N      sequences (default 16)
  --repo R       folder, or a package to download (${knownPackages.join(', ')});
                 may be repeated (default: all of these); sequences take them in turn
  --tasks T      lookups: the model's own kinds of question, on the real code (default)
                 ruler: needles, key-value pairs, variables, common words, in made-up files among the real ones
  --seed N       which files and symbols are picked (default 1)

Dense is always run, for the differences. Exit code: 0 done, 1 failed, 2 wrong usage.`;

const kvFormats = ['bf16', 'q8', 'q4', 'fp8'] as const;

class UsageError extends Error {}

/** npm runs scripts in the package's folder; people mean the one they stand in. */
function inCallersFolder(path: string): string {
  return resolve(process.env.INIT_CWD ?? process.cwd(), path);
}

function readArguments() {
  try {
    const string = { type: 'string' } as const;
    const { values } = parseArgs({
      options: {
        data: string,
        mode: { ...string, default: 'dense,adaptive' },
        model: string,
        profile: string,
        device: { ...string, default: 'auto' },
        'kv-format': { ...string, default: 'auto' },
        threads: { ...string, default: '0' },
        sequences: string,
        make: string,
        length: string,
        count: { ...string, default: '16' },
        repo: { type: 'string', multiple: true },
        tasks: { ...string, default: 'lookups' },
        seed: { ...string, default: '1' },
        json: { type: 'boolean', default: false },
        help: { type: 'boolean', default: false },
      },
    });
    const count = (name: string, text: string) => {
      const value = Number(text);
      if (text.trim() === '' || !Number.isSafeInteger(value) || value < 0)
        throw new Error(`--${name} takes whole numbers, not '${text}'.`);
      return value;
    };
    const device = (['auto', 'cpu', 'cuda'] as const).find((name) => name === values.device);
    if (!device) throw new Error(`There is no device '${values.device}': auto, cpu or cuda.`);
    const kvFormat = (['auto', ...kvFormats] as const).find((name) => name === values['kv-format']);
    if (!kvFormat)
      throw new Error(`There is no KV format '${values['kv-format']}': auto, bf16, q8, q4 or fp8.`);
    const tasks = (['lookups', 'ruler'] as const).find((name) => name === values.tasks);
    if (!tasks) throw new Error(`There are no tasks '${values.tasks}': lookups or ruler.`);
    if (!values.help && !values.data && !values.make) throw new Error('--data or --make names a file.');
    const model = values.model ? inCallersFolder(values.model) : builtInModel(projectRoot);
    const length = count('length', values.length ?? '0');
    if (values.make && length < 2048) throw new Error('--make needs a --length of at least 2048 tokens.');
    return {
      ...values,
      data: values.data && inCallersFolder(values.data),
      profile: values.profile && inCallersFolder(values.profile),
      model,
      make: {
        length,
        count: Math.max(1, count('count', values.count)),
        repositories: values.repo ?? knownPackages,
        tasks,
        seed: count('seed', values.seed),
        model,
      },
      makeFile: values.make && inCallersFolder(values.make),
      engine: { device, kvFormat, threads: count('threads', values.threads) },
      modes: parseModes(values.mode),
      rows: values.sequences?.split(',').map((row) => count('sequences', row)),
    };
  } catch (error) {
    throw new UsageError((error as Error).message);
  }
}

async function main() {
  const options = readArguments();
  if (options.help) return print(usage);
  process.env.LONGVIEW_ADDON ??= join(projectRoot, 'dist', 'longview.node');
  if (options.makeFile) {
    // Loaded when it is needed: it takes a tokenizer, which the evaluation does without.
    const { makeData } = await import('./makeData');
    makeData(options.makeFile, options.make);
  }
  if (!options.data) return;
  const data = readData(options.data, options.rows, tell);

  const run = (mode: Mode, engine: EngineOptions) =>
    evaluate(options.model, mode, data, { engine, profile: options.profile });
  const failed = (mode: Mode, error: unknown) => {
    process.exitCode = 1;
    if (options.json) print(JSON.stringify({ mode: mode.text, n: data.n, error: messageOf(error) }));
  };
  const dense = await run({ text: 'dense', mode: 'dense' }, options.engine).catch((error: unknown) => {
    for (const mode of options.modes) failed(mode, error);
    throw error;
  });
  // What was chosen by the memory that was free then: differences must not be those of two devices or formats.
  const engine = { ...options.engine, device: dense.device, kvFormat: dense.kvFormat };
  const summaries: Summary[] = [];
  for (const mode of options.modes) {
    try {
      const { forced } = mode.mode === 'dense' ? dense : await run(mode, engine);
      const summary = summarize(mode.text, data, dense.forced, forced);
      summaries.push(summary);
      if (options.json) print(JSON.stringify(summary));
    } catch (error) {
      // The other modes may have taken hours, or will.
      tell(messageOf(error));
      failed(mode, error);
    }
  }
  if (!options.json && summaries.length > 0) print(table(summaries));
}

async function evaluate(
  model: string,
  mode: Mode,
  data: Data,
  options: { engine: EngineOptions; profile?: string },
): Promise<{ forced: Forced[] } & Pick<EngineOptions, 'device' | 'kvFormat'>> {
  const { mode: name, target } = mode;
  const prefill = { mode: name, target, profile: options.profile };
  const engine = await naming(mode.text, () => openNativeEngine(model, { ...options.engine, prefill }));
  // Another KV format than the one that was asked for, say, or no sparse reading.
  if (engine.device.note) tell(`${mode.text}: ${engine.device.note}`);
  try {
    checkReadable(data, engine.model.vocabularySize, engine.window);
    const forced: Forced[] = [];
    for (const sequence of data.sequences) {
      const result = await naming(`${mode.text}, sequence ${sequence.index}`, () =>
        force(engine, mode, sequence),
      );
      forced.push(result);
      const density = `${(100 * result.density).toFixed(1)} % density`;
      const progress = `${forced.length} of ${data.sequences.length}`;
      tell(`${mode.text}: ${progress}, ${result.seconds.toFixed(1)} s, ${density}`);
    }
    const kvFormat = kvFormats.find((format) => engine.model.kvLayout.split('-').includes(format));
    return { forced, device: engine.device.kind, kvFormat };
  } finally {
    await engine.dispose();
  }
}

/** What fails says where. */
async function naming<T>(where: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    throw new Error(`${where}: ${messageOf(error)}`, { cause: error });
  }
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

main().catch((error: unknown) => {
  const wrongUsage = error instanceof UsageError;
  tell(messageOf(error));
  if (wrongUsage) tell(`\n${usage}`);
  process.exitCode = wrongUsage ? 2 : 1;
});
