/**
 * The engine as the server sees it: token ids in, token ids out. Text is the tokenizer's affair.
 * Implemented by nativeEngine.ts on the addon.
 */

/** Token ids of the loaded model's vocabulary. */
export type TokenIds = Int32Array;

/**
 * How a prompt is read (native/sparse/prefill_plan.h): `auto` leaves out keys where that is faster, `minference` by that
 * method's patterns, the last three are for comparisons.
 */
export interface PrefillOptions {
  mode: 'auto' | 'adaptive' | 'minference' | 'dense' | 'a_shape' | 'vertical_slash' | 'block_sparse';
  /** What to pay for speed with; `exact` is dense. */
  target?: 'fast' | 'balanced' | 'exact';
  /** A head profile's file (native/sparse/head_profile.h): what each head attends to. It must fit the model. */
  profile?: string;
  /**
   * Where a profile of the model, the device and the target is looked for when none is given; without one all heads are read
   * alike. One that cannot be used is passed over, and DeviceInfo.note says why.
   */
  profileFolders?: readonly string[];
}

export interface EngineOptions {
  /** `auto` takes CUDA where there is a device and a library for it, else the CPU. */
  device?: 'auto' | 'cuda' | 'cpu';
  /** Weights of layers on a GPU: as the file has them, or as 8-bit floats made at load (compute capability 9.0). */
  gpuWeights?: 'auto' | 'fp8';
  /** CPU threads; 0 or absent: as many as the machine has. */
  threads?: number;
  /** Arithmetic of matrix products. `f32` is the exact reference, `auto` the fastest path of the device. */
  precision?: 'auto' | 'f32' | 'bf16' | 'int8';
  /** Of the KV state; `auto`: bf16, or q8 where the window does not fit in memory in bf16. `fp8`: q8 where there is no GPU for it. Absent: bf16. */
  kvFormat?: 'auto' | 'bf16' | 'q8' | 'q4' | 'fp8' | 'f32';
  /** How many times its window the model is given, 1, 2 or 4: native/model/stretch.h. */
  stretch?: number;
  /** Of what `extend` may read sparsely; absent: dense. */
  prefill?: PrefillOptions;
  /** Upper bound for KV pages in bytes; absent: what the window needs, within free memory. */
  kvBudgetBytes?: number;
  /** Code path of the CPU (`scalar`, `avx2`, `avxvnni`, `avx512`, `avx512bf16`, `amx`, `neon`, `neondot`); absent: the best. For tests and benches. */
  isa?: string;
}

export interface ModelInfo {
  path: string;
  /** The file's own word for it: `llama`, `qwen2`, `phi3`, … */
  architecture: string;
  /** Name for people, from the metadata or the file name. */
  name: string;
  /** Changes when the weights do. */
  fingerprint: string;
  /** Tokens the model was made for, or what that was stretched to. */
  window: number;
  /** So many times. */
  stretch: number;
  /** Whether its makers recommend that. */
  stretches: boolean;
  vocabularySize: number;
  layers: number;
  parameters: number;
  weightBytes: number;
  kvBytesPerToken: number;
  /** Names format and layout of the KV state: saved pages are read back only where it is the same. */
  kvLayout: string;
}

export interface DeviceInfo {
  kind: 'cpu' | 'cuda';
  /** One line for people: `AMD EPYC 9555, 2 threads, AVX-512 BF16`. */
  name: string;
  isa: string;
  /** What is not as one would expect, in sentences: no GPU, a smaller window, a profile or a KV format that is not used; else empty. */
  note: string;
  threads: number;
  memoryBytes: number;
  freeMemoryBytes: number;
}

/** Counters of the engine since it was opened; what the tests of reuse assert on. */
export interface EngineCounters {
  /** Tokens run through the layers by `extend`. */
  prefilledTokens: number;
  /** Tokens run through the layers by `generate`. */
  decodedTokens: number;
  /** Of these, tokens that were guessed from what the context holds, and checked with others in one pass (native/engine/prompt_lookup.h). */
  guessedTokens: number;
  /** KV pages in use, shared ones counted once. */
  kvPagesUsed: number;
  kvBytesUsed: number;
}

export interface LoadProgress {
  /** Bytes of weights on the device so far. */
  done: number;
  total: number;
}

export interface OpeningOptions {
  /** Called while weights travel to the device. */
  onLoad?: (progress: LoadProgress) => void;
  signal?: AbortSignal;
}

export interface PrefillProgress {
  /** Tokens of this call done so far, and of the context those that recurrent layers had to see again. */
  done: number;
  total: number;
  /** Of what this call reads itself; 0 until something was. */
  tokensPerSecond: number;
}

/** Jobs wait for each other at chunk and token boundaries in this order. */
export type Priority = 'answer' | 'hover' | 'prefill' | 'background';

export interface ExtendOptions {
  /** Attention may leave keys out, as EngineOptions.prefill says: for a repository, never for a question or an answer. */
  sparse?: boolean;
  signal?: AbortSignal;
  priority?: Priority;
  onProgress?: (progress: PrefillProgress) => void;
}

export interface ExtendResult {
  tokens: number;
  /** Of these, tokens whose pages were held already: by another context, or by none any more. */
  reused: number;
  seconds: number;
  /** Share of the keys that dense attention visits; absent where nothing was to be read, or not `sparse`. */
  density?: number;
  /** Mean mass that sparse attention puts where dense attention puts it, by probe rows; absent where all was dense. */
  coveredMass?: number;
  /** The same of each layer but the last, where only results attend, and those that see a span of tokens alone; absent as density is. */
  layers?: { density: number; coveredMass?: number }[];
}

export interface ScoreOptions {
  signal?: AbortSignal;
  priority?: Priority;
}

/** How the model foresaw each of the tokens that were scored. */
export interface ScoreResult {
  /** -ln of the probability of each token, given everything before it. */
  nll: Float64Array;
  /** The likeliest token in its place; of equals the one with the smallest id. */
  top1: Int32Array;
}

/** What is out of range throws `invalid_argument`, here and everywhere: nothing is cut or rounded. */
export interface SamplingOptions {
  /** 0 to 100; 0 is greedy: the default. */
  temperature?: number;
  /** 0: no limit, the default. */
  topK?: number;
  topP?: number;
  minP?: number;
  /** A whole number from 0. */
  seed?: number;
}

export interface GenerateOptions {
  maxTokens: number;
  /** Ids that end the answer; the stop token itself is part neither of the context nor of the result. */
  stopTokens: readonly number[];
  /** Sequences of ids that do the same; what may be the beginning of one reaches `onToken` when it is certain. */
  stopSequences?: readonly TokenIds[];
  sampling?: SamplingOptions;
  /** Whether tokens may be guessed from the context and checked several at a time, the default; false is for measurements. */
  guess?: boolean;
  signal?: AbortSignal;
  priority?: Priority;
  /** Called for each token as it is chosen; several come at once where guesses were right. */
  onToken?: (token: number) => void;
}

export interface GenerateResult {
  tokens: TokenIds;
  /** `window`: the context is full. `cancelled` is an error instead. */
  finish: 'stop' | 'length' | 'window';
  /** From the call to the first token. */
  firstTokenSeconds: number;
  seconds: number;
}

export interface FocusOptions {
  signal?: AbortSignal;
  /** Default: `background`. */
  priority?: Priority;
}

export interface SaveOptions {
  /** Made where it is missing. One for each model and KV layout. */
  folder: string;
  /** Bytes that the folder may take; what does not fit is left out from the end. Absent: no limit. */
  maxBytes?: number;
  /** Write every page anew: something there is damaged. */
  afresh?: boolean;
  signal?: AbortSignal;
  /** Tokens on disk, of the context's. */
  onProgress?: (progress: { done: number; total: number }) => void;
}

export interface SaveResult {
  /** Tokens of the context, from its beginning, that are on disk. */
  tokens: number;
  writtenBytes: number;
  /** Another process writes to the folder at this time: nothing was done. */
  busy: boolean;
}

export interface LoadOptions {
  folder: string;
  signal?: AbortSignal;
  priority?: Priority;
  /** Length of the context, of what it will be. */
  onProgress?: (progress: { done: number; total: number }) => void;
}

export interface LoadResult {
  /** Tokens that the context grew by. */
  tokens: number;
  /** A part of what is there was not sound, and was not used: the next save should be afresh. */
  damaged: boolean;
  /** Why there is less than could be expected, a sentence; else empty. */
  note: string;
}

/**
 * The KV state of a token sequence. Forks share pages; a context is used by one job at a time.
 * An aborted call throws LongviewError `cancelled` and keeps what it has done: `length` tells how much.
 */
export interface Context {
  /** Tokens whose KV is held. */
  readonly length: number;
  /** Pre-fills tokens behind what is there, chunk by chunk. Throws `window_exceeded`, `out_of_memory`, `cancelled`. */
  extend(tokens: TokenIds, options?: ExtendOptions): Promise<ExtendResult>;
  /**
   * Extends by tokens as `extend` does (densely) and says how the model foresaw each: teacher forcing, for evaluations.
   * What comes before must be the result of an `extend`, `score` or `generate`.
   */
  score(tokens: TokenIds, options?: ScoreOptions): Promise<ScoreResult>;
  /** Continues after the last extended token. */
  generate(options: GenerateOptions): Promise<GenerateResult>;
  /**
   * What the tokens from `from` on looked at: for each token before, the squares of their attention weights, summed over heads and
   * the later half of the layers. They are read again for it, densely and on a copy, behind everything that someone waits for.
   * Undefined where the device cannot tell. Throws `out_of_memory`, `cancelled`.
   */
  focus(from: number, options?: FocusOptions): Promise<Float32Array | undefined>;
  /** Logits [vocabulary] after the last token of the last `extend`. */
  logits(): Promise<Float32Array>;
  /**
   * Writes the pages to disk as they are at this moment, beside other work and behind all that someone waits for. Throws
   * `disk_full`, `cannot_write`; aborted, it keeps what it has written.
   */
  save(options: SaveOptions): Promise<SaveResult>;
  /** Goes on with pages from disk, as far as they hold `tokens`; there may be none. `extend` does the rest. */
  load(tokens: TokenIds, options: LoadOptions): Promise<LoadResult>;
  /** A context with the same tokens; pages are shared, a ragged tail is copied on write. */
  fork(): Promise<Context>;
  /** Keeps the first `length` tokens. */
  truncate(length: number): Promise<void>;
  dispose(): Promise<void>;
}

export interface CalibrateOptions {
  /** Where profiles are written, and what was measured when it is interrupted. Made where it is missing. */
  folder: string;
  /** A profile for each. */
  targets: readonly CalibratedTarget[];
  /** Share of the keys that heads may visit on average; absent: as much as they do without a profile. */
  density?: number;
  /** Nothing is measured before it. */
  fromToken?: number;
  signal?: AbortSignal;
  priority?: Priority;
  /** Tokens read. */
  onProgress?: (progress: { done: number; total: number }) => void;
}

/** What a profile is for: `auto` and `adaptive` at a target, or `minference`. */
export type CalibratedTarget = 'fast' | 'balanced' | 'minference';

/** A head profile that was written. Means over all heads, on the text. */
export interface CalibratedProfile {
  target: CalibratedTarget;
  path: string;
  density: number;
  /** Of the heads without a profile. */
  uncalibratedDensity: number;
  /** Attention mass that lies where dense attention puts it. */
  recall: number;
}

export interface Engine {
  readonly model: ModelInfo;
  readonly device: DeviceInfo;
  /** Tokens a context may hold: the model's window, or less where memory is short. */
  readonly window: number;
  /** What it would be with the KV state in `q4`; 0: no larger, or the state is not in 8 bits. */
  readonly windowIn4Bits: number;
  createContext(): Promise<Context>;
  /**
   * Finds what each head may leave out, by reading a text and trying (native/engine/calibrate.h). The engine must have been
   * opened for sparse reading. Aborted, or after an error, what was measured is kept, and the same call goes on from there.
   */
  calibrate(tokens: TokenIds, options: CalibrateOptions): Promise<CalibratedProfile[]>;
  /** Lets go of KV state that no context holds: what is read from now on takes over nothing of contexts that were disposed of. */
  forget(): Promise<void>;
  counters(): Promise<EngineCounters>;
  /** Cancels what runs, waits for it, frees everything. */
  dispose(): Promise<void>;
}

/** Values of GGUF metadata, or of the JSON files beside a safetensors model. */
export type MetadataValue = string | number | bigint | boolean | MetadataValue[] | Int32Array | Float32Array;

/** What the tokenizer and the chat template are built from. */
export interface ModelMetadata {
  format: 'gguf' | 'safetensors';
  /** GGUF: every key/value pair. safetensors: empty. */
  values: Record<string, MetadataValue>;
  /** safetensors: the folder that holds tokenizer.json and tokenizer_config.json. */
  folder?: string;
}
