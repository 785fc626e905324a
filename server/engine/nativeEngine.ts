/** engine.ts on the native addon. The only file that loads it. */
import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';
import { type ErrorCode, LongviewError, throwIfAborted } from '../errors';
import { whyNoGpu } from '../platform/gpu';
import type {
  CalibratedProfile,
  CalibrateOptions,
  Context,
  DeviceInfo,
  Engine,
  EngineCounters,
  EngineOptions,
  ExtendOptions,
  ExtendResult,
  FocusOptions,
  GenerateOptions,
  GenerateResult,
  LoadOptions,
  LoadResult,
  ModelInfo,
  ModelMetadata,
  OpeningOptions,
  Priority,
  SaveOptions,
  SaveResult,
  ScoreOptions,
  ScoreResult,
  TokenIds,
} from './engine';

interface AddonEngine {
  open(
    path: string,
    options: EngineOptions,
    onLoad: (done: number, total: number) => void,
    job: number,
  ): Promise<{ model: ModelInfo; device: DeviceInfo; window: number; windowIn4Bits: number }>;
  create(context: number): Promise<void>;
  fork(from: number, to: number): Promise<void>;
  truncate(context: number, length: number): Promise<void>;
  drop(context: number): Promise<void>;
  extend(
    context: number,
    tokens: TokenIds,
    priority: number,
    job: number,
    onProgress: (done: number, length: number, adopted: number, behind: number) => void,
    sparse: boolean,
  ): Promise<Pick<ExtendResult, 'reused' | 'density' | 'coveredMass' | 'layers'>>;
  score(
    context: number,
    tokens: TokenIds,
    priority: number,
    job: number,
    onProgress: (done: number, length: number) => void,
  ): Promise<ScoreResult>;
  generate(
    context: number,
    options: object,
    priority: number,
    job: number,
    onToken: (token: number, length: number) => void,
  ): Promise<Omit<GenerateResult, 'tokens'> & { length: number }>;
  focus(context: number, from: number, priority: number, job: number): Promise<Float32Array | undefined>;
  logits(context: number): Promise<Float32Array>;
  save(
    context: number,
    options: { folder: string; maxBytes: number; afresh: boolean },
    priority: number,
    job: number,
    onProgress: (done: number, total: number) => void,
  ): Promise<SaveResult>;
  load(
    context: number,
    tokens: TokenIds,
    folder: string,
    priority: number,
    job: number,
    onProgress: (length: number, total: number) => void,
  ): Promise<{ length: number; damaged: boolean; note: string }>;
  calibrate(
    tokens: TokenIds,
    options: Pick<CalibrateOptions, 'folder' | 'targets' | 'density' | 'fromToken'>,
    priority: number,
    job: number,
    onProgress: (done: number, total: number) => void,
  ): Promise<CalibratedProfile[]>;
  forget(): Promise<void>;
  counters(): Promise<EngineCounters>;
  cancel(job: number): void;
  close(): Promise<void>;
}

interface Addon {
  Engine: new () => AddonEngine;
  readModelMetadata(path: string): ModelMetadata;
}

/** Pages are saved between the chunks of a pre-fill, and wait for everything that someone waits for. */
const savePriority = 2;
const priorities: Record<Priority, number> = { answer: 4, hover: 3, prefill: 1, background: 0 };

let addon: Addon | undefined;

/** The addon lies beside the bundle; LONGVIEW_ADDON names another place. */
function loadAddon(): Addon {
  const file = process.env.LONGVIEW_ADDON ?? path.join(__dirname, 'longview.node');
  try {
    addon ??= createRequire(__filename)(file) as Addon;
    return addon;
  } catch (cause) {
    // Why the system does not take it, without whatever called for it.
    const why = existsSync(file)
      ? (cause as Error).message.replace(/\.?(\r?\n[^]*)?$/, '')
      : `there is no ${file}`;
    const system = `${process.platform}-${process.arch}`;
    throw new LongviewError(
      'no_addon',
      `Longview's engine could not be loaded: ${why}. Install Longview for ${system}, or build it with \`npm run build\`.`,
      { cause },
    );
  }
}

/** Errors of the addon carry one of the engine's codes. */
function toLongviewError(error: unknown): LongviewError {
  if (error instanceof LongviewError) return error;
  const code = (error as { code?: ErrorCode }).code ?? 'internal';
  return new LongviewError(code, error instanceof Error ? error.message : String(error), { cause: error });
}

/** Throws LongviewError with the engine's code for files that are no model. */
export function readModelMetadata(file: string): ModelMetadata {
  try {
    return loadAddon().readModelMetadata(file);
  } catch (error) {
    throw toLongviewError(error);
  }
}

/** Runs one call as a job that `signal` cancels; errors come out as LongviewError. */
async function asJob<T>(
  native: AddonEngine,
  job: number,
  signal: AbortSignal | undefined,
  call: (native: AddonEngine, job: number) => Promise<T>,
): Promise<T> {
  throwIfAborted(signal);
  const cancel = () => native.cancel(job);
  signal?.addEventListener('abort', cancel, { once: true });
  try {
    return await call(native, job);
  } catch (error) {
    throw toLongviewError(error);
  } finally {
    signal?.removeEventListener('abort', cancel);
    cancel();
  }
}

class NativeContext implements Context {
  length = 0;

  constructor(
    private readonly engine: NativeEngine,
    private readonly id: number,
  ) {}

  /** A job that changes this context. One that fails has kept what it did, and its error tells how much. */
  private async run<T>(
    signal: AbortSignal | undefined,
    call: (native: AddonEngine, job: number) => Promise<T>,
  ): Promise<T> {
    try {
      return await this.engine.run(signal, call);
    } catch (error) {
      this.length = ((error as Error).cause as { length?: number } | undefined)?.length ?? this.length;
      throw error;
    }
  }

  async extend(tokens: TokenIds, options: ExtendOptions = {}): Promise<ExtendResult> {
    const start = performance.now();
    let before = 0;
    const priority = priorities[options.priority ?? 'prefill'];
    let again = 0; // tokens that were held, and that recurrent layers have to see once more
    // Pages that were held already say nothing of how fast the rest is read.
    const progress = (done: number, length: number, adopted: number, behind: number) => {
      this.length = length;
      const seconds = (performance.now() - start) / 1000;
      before = done;
      again = Math.max(again, behind);
      const seen = again - behind;
      const tokensPerSecond = (seen + done - adopted) / Math.max(seconds, 1e-3);
      options.onProgress?.({ done: seen + done, total: again + tokens.length, tokensPerSecond });
    };
    const result = await this.run(options.signal, (native, job) =>
      native.extend(this.id, tokens, priority, job, progress, options.sparse ?? false),
    );
    return { tokens: before, ...result, seconds: (performance.now() - start) / 1000 };
  }

  score(tokens: TokenIds, options: ScoreOptions = {}): Promise<ScoreResult> {
    return this.run(options.signal, (native, job) =>
      native.score(this.id, tokens, priorities[options.priority ?? 'prefill'], job, (_done, length) => {
        this.length = length;
      }),
    );
  }

  async generate(options: GenerateOptions): Promise<GenerateResult> {
    const tokens: number[] = [];
    const settings = {
      ...options.sampling,
      maxTokens: options.maxTokens,
      stopTokens: [...options.stopTokens],
      stopSequences: options.stopSequences ?? [],
      guess: options.guess ?? true,
    };
    const result = await this.run(options.signal, (native, job) =>
      native.generate(this.id, settings, priorities[options.priority ?? 'answer'], job, (token, length) => {
        tokens.push(token);
        this.length = length + 1;
        options.onToken?.(token);
      }),
    );
    this.length = result.length;
    return { ...result, tokens: Int32Array.from(tokens) };
  }

  focus(from: number, options: FocusOptions = {}): Promise<Float32Array | undefined> {
    return this.engine.run(options.signal, (native, job) =>
      native.focus(this.id, from, priorities[options.priority ?? 'background'], job),
    );
  }

  logits(): Promise<Float32Array> {
    return this.engine.run(undefined, (native) => native.logits(this.id));
  }

  save({ folder, maxBytes = 0, afresh = false, signal, onProgress }: SaveOptions): Promise<SaveResult> {
    return this.engine.run(signal, (native, job) =>
      native.save(this.id, { folder, maxBytes, afresh }, savePriority, job, (done, total) =>
        onProgress?.({ done, total }),
      ),
    );
  }

  async load(tokens: TokenIds, { folder, signal, priority, onProgress }: LoadOptions): Promise<LoadResult> {
    const before = this.length;
    const { length, damaged, note } = await this.run(signal, (native, job) =>
      native.load(this.id, tokens, folder, priorities[priority ?? 'prefill'], job, (done, total) => {
        this.length = done;
        onProgress?.({ done, total });
      }),
    );
    this.length = length;
    return { tokens: length - before, damaged, note };
  }

  async fork(): Promise<Context> {
    return this.engine.adopt(this.length, (native, id) => native.fork(this.id, id));
  }

  async truncate(length: number): Promise<void> {
    await this.engine.run(undefined, (native) => native.truncate(this.id, length));
    this.length = length;
  }

  async dispose(): Promise<void> {
    await this.engine.run(undefined, (native) => native.drop(this.id));
  }
}

class NativeEngine implements Engine {
  private nextContext = 1;
  private nextJob = 1;

  constructor(
    private readonly native: AddonEngine,
    readonly model: ModelInfo,
    readonly device: DeviceInfo,
    readonly window: number,
    readonly windowIn4Bits: number,
  ) {}

  run<T>(
    signal: AbortSignal | undefined,
    call: (native: AddonEngine, job: number) => Promise<T>,
  ): Promise<T> {
    return asJob(this.native, this.nextJob++, signal, call);
  }

  async adopt(length: number, make: (native: AddonEngine, id: number) => Promise<void>): Promise<Context> {
    const id = this.nextContext++;
    await this.run(undefined, (native) => make(native, id));
    const context = new NativeContext(this, id);
    context.length = length;
    return context;
  }

  createContext(): Promise<Context> {
    return this.adopt(0, (native, id) => native.create(id));
  }

  calibrate(
    tokens: TokenIds,
    { signal, priority, onProgress, ...options }: CalibrateOptions,
  ): Promise<CalibratedProfile[]> {
    return this.run(signal, (native, job) =>
      native.calibrate(tokens, options, priorities[priority ?? 'background'], job, (done, total) =>
        onProgress?.({ done, total }),
      ),
    );
  }

  forget(): Promise<void> {
    return this.run(undefined, (native) => native.forget());
  }

  counters(): Promise<EngineCounters> {
    return this.run(undefined, (native) => native.counters());
  }

  dispose(): Promise<void> {
    return this.native.close();
  }
}

/** Of an engine that has no other job yet. */
const openingJob = 0;

/** Where there is no code for a GPU the CPU is asked for, and `why` says so to whoever did not. */
function withoutGpu(options: EngineOptions): EngineOptions & { why?: string } {
  const why = whyNoGpu();
  if (why === undefined || options.device === 'cpu') return options;
  if (options.device === 'cuda')
    throw new LongviewError('invalid_argument', `${why} Choose the device auto or cpu.`);
  return { ...options, device: 'cpu', why };
}

/**
 * Opens a model. Throws LongviewError with a sentence for the user: no file, damaged, unsupported, too little memory, and
 * `cancelled` when `signal` is aborted before its weights are on the device.
 */
export async function openNativeEngine(
  file: string,
  options: EngineOptions = {},
  { onLoad, signal }: OpeningOptions = {},
): Promise<Engine> {
  const native = new (loadAddon().Engine)();
  try {
    const { why, ...supported } = withoutGpu(options);
    const { model, device, window, windowIn4Bits } = await asJob(native, openingJob, signal, (_native, job) =>
      native.open(file, supported, (done, total) => onLoad?.({ done, total }), job),
    );
    const name = model.name || path.basename(file).replace(/\.(gguf|safetensors)$/, '');
    const note = [why, device.note].filter((text) => text).join(' ');
    return new NativeEngine(
      native,
      { ...model, name, path: file },
      { ...device, note },
      window,
      windowIn4Bits,
    );
  } catch (error) {
    await native.close(); // its thread need not wait for another model
    throw error;
  }
}
