/**
 * `longview ask|prefill|context|models|cache`: progress to stderr, answers to stdout; exit 0 (done), 1 (failed) or 2 (usage).
 */
import path from 'node:path';
import { oneOf, parse, usage, UsageError, whole, type Options } from './arguments';
import { overBudget, rootOf, Session } from './answers/session';
import { moreRoom } from './answers/room';
import { clearCache, defaultCacheFolder, defaultMaxGiB, savedWorkspaces } from './cache/storage';
import { WorkspaceCache } from './cache/workspaceCache';
import type { PrefillOptions } from './engine/engine';
import { LongviewError } from './errors';
import { here } from './here';
import { calibrate } from './models/calibrate';
import { catalog } from './models/catalog';
import { downloadModel } from './models/download';
import { installedModels } from './models/installed';
import { chooseModel, defaultModelsFolder, locateModel } from './models/locate';
import { openModel, type OpenModel } from './models/openModel';
import { calibratedFolder, profileFolders } from './models/profiles';
import { endingSignals } from './platform/endingSignals';
import { whyNoGpu } from './platform/gpu';
import { leavingRule } from './prompt/budget';
import type { PackedRepository } from './prompt/pack';
import type { MoreRoom } from './protocol';
import { answerMessage, cutMessage, readingMessage } from './statusText';
import { loadingPrinter, print, progressPrinter, showSources, tell, visible, visibleLines } from './terminal';
import { isKnownEncoding } from './workspace/encoding';
import { checkFolder, type ScanOptions } from './workspace/scan';

const extensionFolder = path.join(__dirname, '..');
/** Ctrl-C, `timeout`, or a window that is closed. */
const interrupt = new AbortController();
/** Nobody reads the output any more, as behind `| head`: the work ends, but what was read is still saved. */
const unread = new AbortController();

/** Whoever names a folder wants that one read: none is passed over, and none is read twice. */
function rootsOf({ repo = ['.'] }: Options) {
  const roots = repo.map((given) => rootOf(path.resolve(here, given)));
  for (const { folder } of roots) checkFolder(folder);
  return [...new Map(roots.map((root) => [root.folder, root])).values()];
}

function scanOptionsOf({ include, exclude, encoding }: Options): ScanOptions {
  if (encoding !== undefined && !isKnownEncoding(encoding))
    throw new UsageError(
      `--encoding must be one that can be read, as gbk or windows-1251; ${encoding} is none.`,
    );
  return { include, exclude, encodings: encoding === undefined ? [] : [{ encoding }], gitHistory: true };
}

function openedModel(options: Options, prefill: PrefillOptions, signal: AbortSignal): Promise<OpenModel> {
  const named = options.model ? path.resolve(here, options.model) : '';
  const file = locateModel(named, defaultModelsFolder(), extensionFolder);
  return openModel(
    file,
    {
      device: oneOf(options.device, 'device', ['auto', 'cuda', 'cpu']),
      gpuWeights: oneOf(options['gpu-weights'], 'gpu-weights', ['auto', 'fp8']),
      threads: whole(options.threads, 'threads', 0, 1024),
      stretch: Number(oneOf(options.stretch, 'stretch', ['1', '2', '4'])),
      prefill,
      kvFormat: oneOf(options['kv-format'], 'kv-format', ['auto', 'bf16', 'q8', 'q4', 'fp8']),
    },
    { onLoad: loadingPrinter(path.basename(file)), signal },
  );
}

/** Opens model and session, runs `work`, closes them. */
async function withSession<T>(
  options: Options,
  signal: AbortSignal,
  work: (session: Session) => Promise<T>,
): Promise<T> {
  const maxAnswerTokens = whole(options['max-tokens'], 'max-tokens', 1);
  const scan = scanOptionsOf(options);
  const roots = rootsOf(options);
  const prefill: PrefillOptions = {
    mode: oneOf(options['prefill-mode'], 'prefill-mode', ['auto', 'adaptive', 'minference', 'dense']),
    target: oneOf(options['prefill-target'], 'prefill-target', ['balanced', 'fast', 'exact']),
    profile: options.profile === undefined ? undefined : path.resolve(here, options.profile),
    profileFolders: profileFolders(defaultModelsFolder(), extensionFolder),
  };
  const model = await openedModel(options, prefill, signal);
  try {
    const root = defaultCacheFolder();
    const maxBytes = defaultMaxGiB * 2 ** 30;
    const cache =
      root === undefined ? undefined : new WorkspaceCache(model.engine, roots, { root, maxBytes });
    const session = await Session.create(model, roots, {
      ...scan,
      maxAnswerTokens,
      cache,
    });
    try {
      return await work(session);
    } finally {
      // What Ctrl-C stopped is saved all the same; where it comes during the saving, or a second time, it ends that.
      await session.dispose(interrupt.signal.aborted ? undefined : interrupt.signal);
      if (cache?.saved.note !== undefined) tell(cache.saved.note);
    }
  } finally {
    await model.dispose();
  }
}

const roomHint = (room: MoreRoom) =>
  room.by === 'stretch'
    ? `\`--stretch ${room.factor}\` makes the window ${room.window} tokens, by YaRN, as the model's makers recommend for longer texts.`
    : `\`--kv-format q4\` has room for ${room.window} tokens: 4 bits of what was read, a little less exact than 8.`;

function showPacked(session: Session, repository: PackedRepository): void {
  const { files, skipped } = repository;
  const { engine, loadSeconds } = session.model;
  const { model, device } = engine;
  tell(
    `${files.length} of ${files.length + overBudget(repository)} files · ${model.name}, loaded in ${loadSeconds.toFixed(1)} s · ${device.name}`,
  );
  if (device.note !== '') tell(device.note);
  const left = skipped.filter((file) => file.reason === 'over-budget');
  if (left.length > 0) tell(`Left out, beyond the window (${leavingRule}):`);
  for (const file of left.slice(0, 20)) tell(`  ${file.path} (${file.detail})`);
  if (left.length > 20) tell(`  and ${left.length - 20} more: \`longview context\` lists them all`);
  const room = moreRoom(engine, repository);
  if (room) tell(roomHint(room));
}

async function ask(args: string[], signal: AbortSignal): Promise<void> {
  const { values, positionals } = parse('ask', args, true);
  if (positionals.length === 0 || positionals.some((question) => question.trim() === ''))
    throw new UsageError('A question is missing.');
  await withSession(values, signal, async (session) => {
    let shown = false;
    for (const question of positionals) {
      let inLine = false;
      const asked = session.ask({
        question,
        signal,
        onPacked: (repository) => {
          if (!shown) showPacked(session, repository);
          shown = true;
        },
        onText: (text) => {
          if (values.json) return;
          process.stdout.write(visibleLines(text));
          inLine = true;
        },
        onProgress: progressPrinter(readingMessage),
      });
      const { conversationId, answer, citations, missing, stats, finish } = await asked.finally(() => {
        // One that is stopped ends its line too.
        if (inLine) process.stdout.write('\n');
      });
      if (values.json) {
        const sources = await session.sources(conversationId, signal);
        print(JSON.stringify({ answer, citations, missing, sources, stats, finish }));
        continue;
      }
      const places = citations.map(({ path: file, span }) => `  ${file}${span ? `:${span.startLine}` : ''}`);
      for (const place of new Set(places)) print(place);
      for (const { text, why } of missing) print(`  not found: ${text} ${why}`);
      showSources((await session.sources(conversationId, signal)) ?? []);
      const cut = cutMessage(finish, stats);
      if (cut !== undefined) tell(cut);
      tell(answerMessage(stats));
    }
  });
}

async function prefill(args: string[], signal: AbortSignal): Promise<void> {
  const { values } = parse('prefill', args);
  await withSession(values, signal, async (session) => {
    const { tokens, reused, seconds } = await session.prefill({
      signal,
      onPacked: (repository) => showPacked(session, repository),
      onProgress: progressPrinter(readingMessage),
    });
    const result = { tokens, reusedTokens: reused, seconds };
    print(
      values.json
        ? JSON.stringify(result)
        : `${tokens} tokens, ${reused} of them held, ${seconds.toFixed(1)} s`,
    );
  });
}

async function calibrateModel(args: string[], signal: AbortSignal): Promise<void> {
  const { values } = parse('calibrate', args);
  const { text, out } = values;
  const target =
    values.target === undefined
      ? undefined
      : oneOf(values.target, 'target', ['fast', 'balanced', 'minference']);
  const tokens = whole(values.tokens, 'tokens');
  const density = whole(values.density, 'density', 1, 1000);
  const scan = scanOptionsOf(values);
  const source = text === undefined ? { roots: rootsOf(values), scan } : { file: path.resolve(here, text) };
  const model = await openedModel(values, { mode: 'adaptive' }, signal);
  try {
    const profiles = await calibrate(model, {
      source,
      folder: out === undefined ? calibratedFolder(defaultModelsFolder()) : path.resolve(here, out),
      targets: target && [target],
      tokens,
      density: density === undefined ? undefined : density / 1000,
      signal,
      onProgress: progressPrinter(({ done, total }) => `calibrating: ${done} of ${total} tokens`),
    });
    if (values.json) return print(JSON.stringify({ profiles }));
    const percent = (share: number) => `${(100 * share).toFixed(1)} %`;
    for (const { target, path: file, density, uncalibratedDensity, recall } of profiles)
      print(
        `${target}: ${percent(density)} of the keys (${percent(uncalibratedDensity)} without a profile), ${percent(recall)} of the mass  ${file}`,
      );
  } catch (error) {
    if (error instanceof LongviewError && error.code === 'cancelled')
      throw new LongviewError(
        'cancelled',
        'Stopped. What was measured is kept: the same command goes on from there.',
      );
    throw error;
  } finally {
    await model.dispose();
  }
}

async function context(args: string[], signal: AbortSignal): Promise<void> {
  const { values } = parse('context', args);
  await withSession(values, signal, async (session) => {
    const result = await session.context(signal);
    if (values.json) return print(JSON.stringify(result));
    const { files, skipped, usedTokens, reservedTokens, window, room } = result;
    for (const file of files) print(`${String(file.tokens).padStart(8)}  ${file.path}`);
    print(`${String(usedTokens).padStart(8)}  in all, of ${window}; ${reservedTokens} are kept free`);
    if (room) print(roomHint(room));
    if (skipped.length > 0) print('\nLeft out:');
    for (const { path: file, reason, detail } of skipped)
      print(`  ${visible(file)}  ${reason}${detail ? ` (${detail})` : ''}`);
  });
}

/** Undefined, and said, where the one that is named is not there: this is where one looks for what is. */
function currentModel(folder: string): string | undefined {
  try {
    return locateModel('', folder, extensionFolder);
  } catch (error) {
    tell((error as Error).message);
    return undefined;
  }
}

async function models(args: string[], signal: AbortSignal): Promise<void> {
  const { values, positionals } = parse('models', args, true);
  const [verb = 'list', what] = positionals;
  const folder = defaultModelsFolder();
  if (verb === 'list' && what === undefined) {
    const installed = await installedModels(folder, extensionFolder, currentModel(folder));
    const noGpu = whyNoGpu();
    if (values.json) return print(JSON.stringify({ installed, catalog, noGpu }));
    for (const { name, path: file, bytes, current } of installed)
      print(`${current ? '*' : ' '} ${name}  ${(bytes / 1e9).toFixed(1)} GB  ${file}`);
    print('\nFor download:');
    if (noGpu !== undefined) print(`  ${noGpu}`);
    for (const { id, bytes, licence, window, goodFor, needs } of catalog)
      print(
        `  ${id}\n    ${(bytes / 1e9).toFixed(1)} GB · ${licence} · window ${window} · ${goodFor} · ${needs}`,
      );
  } else if (verb === 'download' && what !== undefined) {
    const entry = catalog.find(({ id }) => id === what);
    if (!entry) throw new UsageError(`There is no model ${what} in the catalogue.`);
    const file = await downloadModel(entry, folder, {
      signal,
      onProgress: progressPrinter(
        ({ done, total }) => `${(done / 1e9).toFixed(2)} of ${(total / 1e9).toFixed(2)} GB`,
      ),
    });
    print(values.json ? JSON.stringify({ path: file }) : file);
  } else if (verb === 'use' && what !== undefined) {
    const file = path.resolve(here, what);
    await (await openModel(file, {}, { onLoad: loadingPrinter(path.basename(file)), signal })).dispose();
    await chooseModel(folder, file);
    if (currentModel(folder) !== file)
      tell('LONGVIEW_MODEL names another model: as long as it does, that one is used.');
    if (values.json) print(JSON.stringify({ path: file }));
  } else {
    throw new UsageError('models takes list, download ID or use PATH.');
  }
}

async function cache(args: string[]): Promise<void> {
  const { values, positionals } = parse('cache', args, true);
  const [verb = 'list', what] = positionals;
  const root = defaultCacheFolder();
  if (what !== undefined || (verb !== 'list' && verb !== 'clear'))
    throw new UsageError('cache takes list or clear.');
  if (verb === 'clear') {
    const freedBytes = root === undefined ? 0 : await clearCache(root);
    return print(values.json ? JSON.stringify({ freedBytes }) : `${gigabytes(freedBytes)} freed`);
  }
  const saved = root === undefined ? [] : await savedWorkspaces(root);
  if (values.json) return print(JSON.stringify({ saved }));
  for (const { bytes, folders, model } of saved)
    print(`${gigabytes(bytes).padStart(10)}  ${folders.join(', ')} (${model})`);
  const total = saved.reduce((sum, { bytes }) => sum + bytes, 0);
  print(`${gigabytes(total).padStart(10)}  in all, in ${root ?? 'no folder'}`);
}

function gigabytes(bytes: number): string {
  return `${(bytes / 1e9).toFixed(2)} GB`;
}

const commands: Record<string, (args: string[], signal: AbortSignal) => Promise<void>> = {
  ask,
  prefill,
  calibrate: calibrateModel,
  context,
  models,
  cache,
};

async function main(): Promise<number> {
  for (const signal of endingSignals()) process.once(signal, () => interrupt.abort());
  process.stdout.on('error', () => unread.abort());
  // An answer does without its progress.
  process.stderr.on('error', () => undefined);
  const [name = '', ...args] = process.argv.slice(2);
  if (name === 'help' || [name, ...args].some((word) => word === '--help' || word === '-h')) {
    print(usage);
    return 0;
  }
  try {
    const command = Object.hasOwn(commands, name) ? commands[name] : undefined;
    if (!command)
      throw new UsageError(name === '' ? 'A command is missing.' : `There is no command ${name}.`);
    await command(args, AbortSignal.any([interrupt.signal, unread.signal]));
    return unread.signal.aborted ? 1 : 0;
  } catch (error) {
    const wrongUse =
      error instanceof UsageError || (error as { code?: string }).code?.startsWith('ERR_PARSE_ARGS');
    tell(error instanceof Error ? error.message : String(error));
    if (wrongUse) tell(usage);
    else if (!(error instanceof LongviewError) && process.env.LONGVIEW_DEBUG) console.error(error);
    return wrongUse ? 2 : 1;
  }
}

void main().then((code) => (process.exitCode = code));
