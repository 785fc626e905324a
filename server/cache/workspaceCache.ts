/**
 * Which saved state belongs to a workspace, when it is loaded and saved, and what goes when the disk's budget is used up.
 * One folder for each workspace, model and KV layout; the engine writes pages there, packingFile.ts the prompt's making.
 * Nothing in here fails an answer: what cannot be saved or loaded becomes a note.
 */
import { createHash } from 'node:crypto';
import path from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import type { Context, Engine } from '../engine/engine';
import { LongviewError } from '../errors';
import { nameKey } from '../platform/fileNames';
import type { Packing } from '../prompt/packing';
import type { SavedState } from '../protocol';
import { throttled } from '../statusText';
import type { Root } from '../workspace/scan';
import { hasPacking, readPacking, writePacking } from './packingFile';
import { evict, writeLabel } from './storage';

export interface CacheOptions {
  /** Holds the folders of all workspaces. */
  root: string;
  /** Of all of them together. */
  maxBytes: number;
  /** Called when `saved` has changed. */
  onChange?: (saved: SavedState) => void;
  busyMs?: number;
}

/** Where another process saves the same state, one looks again after so long, then after twice as long each time. */
const busyMs = 1000;
/** In all about eight minutes. What is read later is saved all the same. */
const busyTries = 9;

export class WorkspaceCache {
  readonly folder: string;
  /** A note says why something is missing; the numbers are tokens of the prompt. */
  saved: SavedState = { tokens: 0, total: 0 };
  private wanted: { context: Context; packing: Packing } | undefined;
  private working: Promise<void> | undefined;
  private damaged = false;
  private written: Packing | undefined;
  private readonly finishing = new AbortController();
  private readonly stopping = new AbortController();

  constructor(
    private readonly engine: Engine,
    private readonly roots: readonly Root[],
    private readonly options: CacheOptions,
  ) {
    const { fingerprint, kvLayout, stretch } = engine.model;
    const places = roots.map(({ name, folder }) => [name, nameKey(folder)]);
    const identity = JSON.stringify([places, fingerprint, kvLayout, ...(stretch > 1 ? [stretch] : [])]);
    const hash = createHash('sha256').update(identity).digest('hex').slice(0, 24);
    this.folder = path.join(options.root, hash);
  }

  private show(change: Partial<SavedState>): void {
    this.saved = { ...this.saved, ...change };
    this.options.onChange?.(this.saved);
  }

  /** The packing that was saved last; undefined where there is none to go on from. */
  async restore(): Promise<Packing | undefined> {
    const packing = await readPacking(this.folder, this.engine.model.vocabularySize);
    this.written = packing;
    return packing;
  }

  /** Loads what is saved of `tokens` behind what the context holds; returns by how many it grew. Throws `cancelled`. */
  async load(
    context: Context,
    tokens: Int32Array,
    onProgress?: (progress: { done: number; total: number }) => void,
    signal?: AbortSignal,
  ): Promise<number> {
    const before = context.length;
    try {
      const result = await context.load(tokens, { folder: this.folder, signal, onProgress });
      this.damaged ||= result.damaged;
      if (result.note !== '') this.show({ note: result.note });
      return result.tokens;
    } catch (error) {
      if (error instanceof LongviewError && error.code === 'cancelled') throw error;
      this.show({ note: (error as Error).message });
      return context.length - before;
    }
  }

  /** Saves in the background what of the context is not saved yet, and how its prompt was made. */
  save(context: Context, packing: Packing): void {
    if (this.stopping.signal.aborted) return;
    this.wanted = { context, packing };
    this.working ??= this.work();
  }

  private async work(): Promise<void> {
    let tries = 0;
    while (this.wanted && !this.stopping.signal.aborted) {
      const { wanted } = this;
      this.wanted = undefined;
      try {
        const saved = await this.saveNow(wanted.context, wanted.packing);
        if (!saved && tries < busyTries && !this.finishing.signal.aborted) {
          this.wanted ??= wanted;
          await this.pause(2 ** tries++);
        }
      } catch (error) {
        if (!(error instanceof LongviewError && error.code === 'cancelled'))
          this.show({ note: `What was read could not be saved. ${(error as Error).message}`, failed: true });
      }
    }
    // At once: what is wanted a moment later is begun by `save`.
    this.working = undefined;
  }

  /** Until it is time to look again, or to finish. */
  private async pause(times: number): Promise<void> {
    const options = { signal: this.finishing.signal, ref: false };
    await pause(times * (this.options.busyMs ?? busyMs), undefined, options).catch(() => undefined);
  }

  /** False where another process saves the same state at this time. */
  private async saveNow(context: Context, packing: Packing): Promise<boolean> {
    const { root, maxBytes } = this.options;
    const result = await context.save({
      folder: this.folder,
      maxBytes,
      afresh: this.damaged,
      signal: this.stopping.signal,
      onProgress: throttled(({ done, total }) => this.show({ tokens: done, total })),
    });
    if (result.busy) {
      this.show({ note: 'Another window saves the state of this workspace at this time.' });
      return false;
    }
    this.damaged = false;
    const { written } = this;
    // The folder may have been cleared since.
    const present = hasPacking(this.folder);
    if (!present || written?.base !== packing.base || written.overlay !== packing.overlay) {
      await writePacking(this.folder, packing);
      this.written = packing;
    }
    await writeLabel(this.folder, {
      folders: this.roots.map(({ folder }) => folder),
      model: this.engine.model.name,
    });
    await evict(root, maxBytes, this.folder);
    this.show({ tokens: result.tokens, total: context.length, note: undefined, failed: undefined });
    return true;
  }

  /** Waits for what is being saved, as long as `signal` lets it; then what is written is kept. Another process is not waited for. */
  async finish(signal?: AbortSignal): Promise<void> {
    this.finishing.abort();
    const stop = () => this.stopping.abort();
    if (signal?.aborted) stop();
    signal?.addEventListener('abort', stop, { once: true });
    await this.working;
    signal?.removeEventListener('abort', stop);
    stop();
  }
}
