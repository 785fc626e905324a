/**
 * The model's state of a packed repository: one context whose tokens are the prompt's. When the prompt changes, what both
 * have in common stays; the rest is read. Conversations fork it.
 */
import type { Context, Engine, PrefillProgress } from '../engine/engine';
import { Lock } from '../lock';

/** Length of the longest common prefix. */
export function commonPrefix(a: Int32Array, b: Int32Array): number {
  const end = Math.min(a.length, b.length);
  let length = 0;
  while (length < end && a[length] === b[length]) length++;
  return length;
}

export interface Reading {
  seconds: number;
  /** Tokens of the prompt whose state was there before. */
  reused: number;
}

export class RepositoryState {
  private held: Int32Array = new Int32Array();
  private readonly lock = new Lock();

  private constructor(private readonly context: Context) {}

  static async create(engine: Engine): Promise<RepositoryState> {
    return new RepositoryState(await engine.createContext());
  }

  /** Reads what of `prompt` is not read yet. Cancelled, it keeps what it has. `onProgress` counts tokens of the prompt. */
  read(
    prompt: Int32Array,
    onProgress?: (progress: PrefillProgress) => void,
    signal?: AbortSignal,
  ): Promise<Reading> {
    return this.lock.run(() => this.readNow(prompt, onProgress, signal), signal);
  }

  private async readNow(
    prompt: Int32Array,
    onProgress?: (progress: PrefillProgress) => void,
    signal?: AbortSignal,
  ): Promise<Reading> {
    const reused = commonPrefix(this.held.subarray(0, this.context.length), prompt);
    if (reused < this.context.length) await this.context.truncate(reused);
    this.held = prompt;
    if (reused === prompt.length) return { seconds: 0, reused };
    const { seconds } = await this.context.extend(prompt.subarray(reused), {
      signal,
      onProgress: ({ done, tokensPerSecond }) =>
        onProgress?.({ done: reused + done, total: prompt.length, tokensPerSecond }),
    });
    return { seconds, reused };
  }

  /** Reads `prompt` and forks, with no other reader in between. */
  fork(
    prompt: Int32Array,
    onProgress?: (progress: PrefillProgress) => void,
    signal?: AbortSignal,
  ): Promise<Reading & { context: Context }> {
    return this.lock.run(async () => {
      const reading = await this.readNow(prompt, onProgress, signal);
      return { ...reading, context: await this.context.fork() };
    }, signal);
  }

  /** Whether `prompt` is read to its end. */
  holds(prompt: Int32Array): boolean {
    return this.context.length === prompt.length && commonPrefix(this.held, prompt) === prompt.length;
  }

  dispose(): Promise<void> {
    return this.context.dispose();
  }
}
