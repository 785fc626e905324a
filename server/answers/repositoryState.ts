/**
 * The model's state of a packed repository: one context whose tokens are the prompt's. When the prompt changes, what both
 * have in common stays; the rest is read. Conversations fork it.
 */
import type { Context, Engine, PrefillProgress, Priority } from '../engine/engine';
import { Lock } from '../lock';

/** Length of the longest common prefix. */
export function commonPrefix(a: Int32Array, b: Int32Array): number {
  const end = Math.min(a.length, b.length);
  let length = 0;
  while (length < end && a[length] === b[length]) length++;
  return length;
}

export interface Reading {
  /** Without the loading. */
  seconds: number;
  /** Tokens of the prompt whose state was there before. */
  reused: number;
  /** Of these, tokens that came from the store, and how long that took; absent where none did. */
  loaded?: { tokens: number; seconds: number };
}

/** Where the state lies between processes. */
export interface StateStore {
  /** Loads what is stored of `tokens` behind what the context holds; returns by how many it grew. Throws `cancelled` alone. */
  load(
    context: Context,
    tokens: Int32Array,
    onProgress?: (progress: { done: number; total: number }) => void,
    signal?: AbortSignal,
  ): Promise<number>;
  /** Stores the context in the background, as it is when that begins. */
  save(context: Context): void;
}

/** A long reading is saved now and then, so that a crash loses little of it. */
const saveTokens = 8192;
const saveMs = 30_000;
/** Tokens of a KV page: below, there is nothing to load. */
const pageTokens = 128;

export class RepositoryState {
  private held: Int32Array = new Int32Array();
  private whole: Int32Array | undefined;
  /** How sparsely the longest stretch was read that was read at once; nothing is known of what was loaded. */
  attention: { tokens: number; density?: number; coveredMass?: number } = { tokens: 0 };
  private readonly lock = new Lock();
  /** Of all that read or wait for it: what is read before one's own turn is most of what one waits for. */
  private readonly watching = new Set<(progress: PrefillProgress) => void>();

  private constructor(
    private readonly context: Context,
    private readonly store?: StateStore,
  ) {}

  static async create(engine: Engine, store?: StateStore): Promise<RepositoryState> {
    return new RepositoryState(await engine.createContext(), store);
  }

  /** Tokens that are read. */
  get length(): number {
    return this.context.length;
  }

  /** The prompt that was read to its end last: what is missing now has changed since. */
  get wasRead(): Int32Array | undefined {
    return this.whole;
  }

  /**
   * Reads what of `prompt` is not read yet. Cancelled, it keeps what it has. `onProgress` counts tokens of the prompt, and of
   * another one while that is read first.
   */
  read(
    prompt: Int32Array,
    onProgress?: (progress: PrefillProgress) => void,
    signal?: AbortSignal,
    priority: Priority = 'prefill',
  ): Promise<Reading> {
    return this.inTurn(() => this.readNow(prompt, signal, priority), onProgress, signal);
  }

  private async inTurn<T>(
    work: () => Promise<T>,
    onProgress?: (progress: PrefillProgress) => void,
    signal?: AbortSignal,
  ): Promise<T> {
    const watch = (progress: PrefillProgress) => onProgress?.(progress);
    this.watching.add(watch);
    try {
      return await this.lock.run(work, signal);
    } finally {
      this.watching.delete(watch);
    }
  }

  private tell(progress: PrefillProgress): void {
    for (const watch of this.watching) watch(progress);
  }

  private async readNow(
    prompt: Int32Array,
    signal?: AbortSignal,
    priority: Priority = 'prefill',
  ): Promise<Reading> {
    const total = prompt.length;
    let reused = commonPrefix(this.held.subarray(0, this.context.length), prompt);
    if (reused < this.context.length) await this.context.truncate(reused);
    this.held = prompt;
    if (reused === total) {
      this.whole = prompt;
      return { seconds: 0, reused };
    }
    let loaded: Reading['loaded'];
    let seconds = 0;
    try {
      if (total - reused >= pageTokens) {
        const start = performance.now();
        const tokens = await this.load(prompt.subarray(reused), total, signal);
        if (tokens > 0) loaded = { tokens, seconds: (performance.now() - start) / 1000 };
        reused += tokens;
      }
      if (reused < total) {
        const start = performance.now();
        const extended = await this.context.extend(prompt.subarray(reused), {
          signal,
          sparse: true,
          priority,
          onProgress: this.savingNowAndThen(({ done, total: all, tokensPerSecond }) =>
            this.tell({ done: total - (all - done), total, tokensPerSecond }),
          ),
        });
        seconds = (performance.now() - start) / 1000;
        reused += extended.reused;
        const { tokens, density, coveredMass } = extended;
        if (density !== undefined && tokens >= this.attention.tokens)
          this.attention = { tokens, density, coveredMass };
      }
    } finally {
      // Also what a stopped reading has done.
      this.store?.save(this.context);
    }
    this.whole = prompt;
    return { seconds, reused, loaded };
  }

  private async load(tokens: Int32Array, total: number, signal?: AbortSignal): Promise<number> {
    // How fast a disk is says nothing of how long the rest takes that is not on it.
    const onProgress = ({ done }: { done: number }) => this.tell({ done, total, tokensPerSecond: 0 });
    return (await this.store?.load(this.context, tokens, onProgress, signal)) ?? 0;
  }

  private savingNowAndThen(
    onProgress: (progress: PrefillProgress) => void,
  ): (progress: PrefillProgress) => void {
    let saved = { tokens: 0, ms: performance.now() };
    return (progress) => {
      onProgress(progress);
      const now = performance.now();
      if (progress.done - saved.tokens < saveTokens && now - saved.ms < saveMs) return;
      saved = { tokens: progress.done, ms: now };
      this.store?.save(this.context);
    };
  }

  /** Reads `prompt` and forks, with no other reader in between. */
  fork(
    prompt: Int32Array,
    onProgress?: (progress: PrefillProgress) => void,
    signal?: AbortSignal,
  ): Promise<Reading & { context: Context }> {
    const readAndFork = async () => {
      const reading = await this.readNow(prompt, signal);
      return { ...reading, context: await this.context.fork() };
    };
    return this.inTurn(readAndFork, onProgress, signal);
  }

  /** Whether `prompt` is read to its end. */
  holds(prompt: Int32Array): boolean {
    return this.context.length === prompt.length && commonPrefix(this.held, prompt) === prompt.length;
  }

  dispose(): Promise<void> {
    return this.context.dispose();
  }
}
