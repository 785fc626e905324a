/**
 * The repository as one prompt. What was packed once keeps its place: edits are appended as later versions, so that the
 * model's state of everything before them stays valid. When they grow past a tenth, the next packing starts afresh.
 */
import { LongviewError, throwIfAborted } from '../errors';
import type { ContextFile, SkippedFile } from '../protocol';
import type { Tokenizer } from '../tokenizer/types';
import { readText, type ScannedFile, type ScanResult } from '../workspace/scan';
import { stayingOrder } from './budget';
import { deletedFile, fileText, head, laterVersion, tail } from './frame';
import { concat } from './template';

export interface PackedFile extends ContextFile {
  absolutePath: string;
  /** The latest version. */
  text: string;
}

export interface PackedRepository {
  files: PackedFile[];
  skipped: SkippedFile[];
  /** Of the whole system text. */
  tokens: Int32Array;
  /** Tokens at the end that hold edits since the files were first packed, `</repository>` not counted. */
  overlayTokens: number;
}

export interface PackOptions {
  name: string;
  tokenizer: Tokenizer;
  /** Tokens of the whole system text at most. */
  budget: number;
  signal?: AbortSignal;
  /** Called now and then with how many of the files have been counted. */
  onProgress?: (done: number, total: number) => void;
}

interface Entry {
  path: string;
  absolutePath: string;
  text: string;
  tokens: number;
  version: number;
  bytes: number;
  ctimeMs: number;
}

/** What changes rarely first, as scanned; an edit then leaves a long common prefix. */
export function stableOrder<T extends ScannedFile>(files: readonly T[]): T[] {
  return [...files].sort((a, b) => a.changedMs - b.changedMs || (a.path < b.path ? -1 : 1));
}

/** Lets other work run between the files: encoding is synchronous. */
function breathe(): Promise<void> {
  return new Promise((done) => setImmediate(done));
}

/** Packs a workspace, and packs it again at the price of what changed. */
export class Packer {
  private base: Int32Array = new Int32Array();
  private overlay: Int32Array[] = [];
  private readonly entries = new Map<string, Entry>();
  private leftOut: SkippedFile[] = [];
  private leftOutPaths = new Set<string>();

  constructor(private readonly options: Omit<PackOptions, 'signal' | 'onProgress'>) {}

  /**
   * The prompt for what the scan found. Left out when not all fits: whole files by budget.ts's rule, each listed.
   * Throws LongviewError `empty_workspace`, `window_exceeded`, `cancelled`; the former state is kept then.
   */
  async pack(
    scan: ScanResult,
    { signal, onProgress }: Pick<PackOptions, 'signal' | 'onProgress'> = {},
  ): Promise<PackedRepository> {
    if (this.base.length === 0 || !(await this.append(scan, signal)))
      await this.fresh(scan, signal, onProgress);
    const overlay = concat(...this.overlay);
    return {
      files: [...this.entries.values()].map(({ path, absolutePath, text, tokens }) => ({
        path,
        absolutePath,
        text,
        tokens,
      })),
      skipped: [...scan.skipped.filter((file) => !this.entries.has(file.path)), ...this.leftOut],
      tokens: concat(this.base, overlay, this.options.tokenizer.encode(tail)),
      overlayTokens: overlay.length,
    };
  }

  private async fresh(
    scan: ScanResult,
    signal?: AbortSignal,
    onProgress?: PackOptions['onProgress'],
  ): Promise<void> {
    const { tokenizer, budget, name } = this.options;
    const leftOut: SkippedFile[] = [];
    const kept: (Entry & { ids: Int32Array; file: ScannedFile })[] = [];
    const tailTokens = tokenizer.encode(tail).length;
    let used = tokenizer.encode(head(name, [])).length + tailTokens;
    let full = false;
    let done = 0;
    for (const file of stayingOrder(scan.files)) {
      throwIfAborted(signal);
      if (++done % 64 === 0) {
        onProgress?.(done, scan.files.length);
        await breathe();
      }
      const over = (detail: string) => leftOut.push({ path: file.path, reason: 'over-budget', detail });
      if (full) {
        over(`${Math.ceil(file.bytes / 1024)} KiB`);
        continue;
      }
      const content = await readText(file);
      if ('reason' in content) {
        leftOut.push({ path: file.path, ...content });
        continue;
      }
      const ids = tokenizer.encode(fileText(file.path, content.text));
      // Its name in the tree counts too; exactly below.
      if (used + ids.length > budget) {
        full = true;
        over(`${ids.length} tokens`);
        continue;
      }
      used += ids.length;
      kept.push({ ...file, text: content.text, tokens: ids.length, version: 1, ids, file });
    }
    let headTokens: Int32Array;
    let inOrder: typeof kept;
    for (;;) {
      const order = new Map(stableOrder(kept.map(({ file }) => file)).map((file, i) => [file.path, i]));
      inOrder = [...kept].sort((a, b) => (order.get(a.path) ?? 0) - (order.get(b.path) ?? 0));
      headTokens = tokenizer.encode(
        head(
          name,
          inOrder.map((file) => file.path),
        ),
      );
      const total = kept.reduce((sum, file) => sum + file.tokens, headTokens.length + tailTokens);
      if (total <= budget || kept.length === 0) break;
      // The tree was larger than reckoned: the last to stay leave, as many as that needs.
      for (let excess = total - budget; excess > 0 && kept.length > 0;) {
        const file = kept.pop()!;
        excess -= file.tokens;
        leftOut.push({ path: file.path, reason: 'over-budget', detail: `${file.tokens} tokens` });
      }
    }
    if (kept.length === 0)
      throw leftOut.some((file) => file.reason === 'over-budget')
        ? new LongviewError('window_exceeded', `No file of ${name} fits into the model's window.`)
        : new LongviewError(
            'empty_workspace',
            `There is no text to read in ${name}: every file was left out.`,
          );
    this.base = concat(headTokens, ...inOrder.map((file) => file.ids));
    this.overlay = [];
    this.entries.clear();
    for (const { ids: _ids, file: _file, ...entry } of inOrder) this.entries.set(entry.path, entry);
    this.leftOut = leftOut;
    this.leftOutPaths = new Set(leftOut.map((file) => file.path));
  }

  /** Appends what changed; false when a fresh packing is better. */
  private async append(scan: ScanResult, signal?: AbortSignal): Promise<boolean> {
    const { tokenizer, budget } = this.options;
    const added: Int32Array[] = [];
    const changed: Entry[] = [];
    const found = new Map(scan.files.map((file) => [file.path, file]));
    for (const path of this.entries.keys())
      if (!found.has(path)) added.push(tokenizer.encode(deletedFile(path)));
    const deleted = [...this.entries.keys()].filter((path) => !found.has(path));
    for (const file of stableOrder(scan.files)) {
      throwIfAborted(signal);
      const known = this.entries.get(file.path);
      if (known && known.ctimeMs === file.ctimeMs && known.bytes === file.bytes) continue;
      if (!known && this.leftOutPaths.has(file.path)) continue;
      const content = await readText(file);
      if ('reason' in content) {
        if (!known) continue;
        deleted.push(file.path);
        added.push(tokenizer.encode(deletedFile(file.path)));
        continue;
      }
      if (known?.text === content.text) {
        changed.push({ ...known, ctimeMs: file.ctimeMs, bytes: file.bytes });
        continue;
      }
      const version = (known?.version ?? 0) + 1;
      const ids = tokenizer.encode(
        version === 1 ? fileText(file.path, content.text) : laterVersion(file.path, content.text, version),
      );
      added.push(ids);
      changed.push({ ...file, text: content.text, tokens: ids.length, version });
    }
    const overlay = [...this.overlay, ...added];
    const overlayTokens = overlay.reduce((sum, ids) => sum + ids.length, 0);
    const small = overlayTokens <= Math.max(this.base.length / 10, 256);
    if (added.length > 0 && (!small || this.base.length + overlayTokens + 8 > budget)) return false;
    this.overlay = overlay;
    for (const path of deleted) this.entries.delete(path);
    for (const entry of changed) this.entries.set(entry.path, entry);
    return true;
  }
}
