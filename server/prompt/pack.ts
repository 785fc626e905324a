/**
 * The repository as one prompt. What was packed once keeps its place: edits are appended as later versions, so that the
 * model's state of everything before them stays valid. When they grow past a tenth, they are packed afresh: at once, or,
 * where someone does that in the background, when the new packing has been read.
 */
import { createHash } from 'node:crypto';
import { LongviewError, throwIfAborted } from '../errors';
import { nameKey } from '../platform/fileNames';
import type { ContextFile, SkippedFile } from '../protocol';
import type { Tokenizer } from '../tokenizer/types';
import { kib } from '../workspace/kib';
import type { TextFault } from '../workspace/readText';
import type { ScannedFile, ScanResult } from '../workspace/scan';
import { littleRoom, stayingOrder } from './budget';
import { contentOf, weighed, type Buffers } from './content';
import { deletedFile, fileText, head, laterVersion, nameInTree, tail } from './frame';
import {
  isSmall,
  overlayTokens,
  placesOf,
  roomIn,
  type Entry,
  type FilePlace,
  type LeftOutFile,
  type Packing,
} from './packing';
import { concat } from './template';
import { whyNothing } from './whyNothing';

export interface PackedFile extends ContextFile {
  absolutePath: string;
  /** The latest version. */
  text: string;
}

export interface PackedRepository {
  files: PackedFile[];
  /** In the order of the prompt: the last one of a path is its latest version. Empty where an older packing did not keep it. */
  places: FilePlace[];
  skipped: SkippedFile[];
  /** Of the whole system text. */
  tokens: Int32Array;
  /** Tokens at the end that hold edits since the files were first packed, `</repository>` not counted. */
  overlayTokens: number;
  packing: Packing;
}

export interface PackerOptions {
  name: string;
  tokenizer: Tokenizer;
  /** Tokens of the whole system text at most. */
  budget: number;
  /** Of these, kept free for edits where not all files fit. Default: none. */
  editRoom?: number;
}

export interface PackOptions {
  signal?: AbortSignal;
  /** Called now and then with how many of the files have been counted. */
  onProgress?: (done: number, total: number) => void;
  buffers?: Buffers;
  /** Someone packs afresh in the background when `rebaseDue` says so: until then edits may grow further. */
  rebaseLater?: boolean;
}

function hashOf(text: string): string {
  return createHash('sha256').update(text).digest('hex');
}

/** What changes rarely first, as scanned; an edit then leaves a long common prefix. */
export function stableOrder<T extends ScannedFile>(files: readonly T[]): T[] {
  return [...files].sort((a, b) => a.changedMs - b.changedMs || (a.path < b.path ? -1 : 1));
}

/** Encoding is synchronous: after so long, other work runs between the files. */
const breathMs = 50;

/** To be called between the files: says how far it is and lets other work run, such as hearing that this shall end. */
function breathing({ signal, onProgress }: PackOptions, total: number): (done: number) => Promise<void> {
  let last = performance.now();
  return async (done) => {
    if (performance.now() - last > breathMs) {
      onProgress?.(done, total);
      await new Promise((resume) => setImmediate(resume));
      last = performance.now();
    }
    throwIfAborted(signal);
  };
}

/** Packs a workspace, and packs it again at the price of what changed. */
export class Packer {
  private packing: Packing | undefined;

  constructor(private readonly options: PackerOptions) {}

  /** What was packed last; replaced, never changed. */
  get current(): Packing | undefined {
    return this.packing;
  }

  /** Goes on from a packing: of an earlier process, or made by `fresh`. */
  adopt(packing: Packing): void {
    this.packing = packing;
  }

  /** Edits and deletions have grown past a tenth: packing afresh would be worth its price. */
  get rebaseDue(): boolean {
    return this.packing !== undefined && !isSmall(this.packing, 1);
  }

  /** Edits and deletions have grown past a fiftieth: worth packing afresh while there is nothing else to do. */
  get rebaseWorthwhile(): boolean {
    return this.packing !== undefined && !isSmall(this.packing, 0.2);
  }

  /**
   * The prompt for what the scan found. Left out when not all fits: whole files by budget.ts's rule, each listed.
   * Throws LongviewError `empty_workspace`, `window_exceeded`, `cancelled`; the former state is kept then.
   */
  async pack(scan: ScanResult, options: PackOptions = {}): Promise<PackedRepository> {
    const { packing } = this;
    this.packing =
      (packing && (await this.append(packing, scan, options))) ?? (await this.fresh(scan, options));
    return this.describe(this.packing, scan);
  }

  private describe(packing: Packing, scan: ScanResult): PackedRepository {
    const { entries, leftOut } = packing;
    return {
      files: [...entries.values()].map(({ path, absolutePath, text = '', tokens }) => ({
        path,
        absolutePath,
        text,
        tokens,
      })),
      places: placesOf(packing),
      skipped: [
        ...scan.skipped,
        ...leftOut.map(({ path, reason, detail }) => ({ path, reason, ...(detail && { detail }) })),
        ...[...entries.values()].flatMap(({ path, base64KiB = 0 }) =>
          base64KiB === 0
            ? []
            : { path, reason: 'base64' as const, detail: `${base64KiB.toLocaleString('en')} KiB` },
        ),
      ],
      tokens: this.promptOf(packing),
      overlayTokens: overlayTokens(packing),
      packing,
    };
  }

  /** Tokens of the prompt of a packing. */
  promptOf({ base, overlay }: Packing): Int32Array {
    return concat(base, ...overlay.map(({ ids }) => ids), this.options.tokenizer.encode(tail));
  }

  /** Packs without edits. Files keep their places where the tree stays the same: what was read before the first edit serves. */
  async fresh(scan: ScanResult, options: PackOptions = {}): Promise<Packing> {
    const { tokenizer, budget, editRoom = 0, name } = this.options;
    const { buffers } = options;
    const breathe = breathing(options, scan.files.length);
    const leftOut: LeftOutFile[] = [];
    const kept: (Entry & { text: string; ids: Int32Array; file: ScannedFile })[] = [];
    const tailTokens = tokenizer.encode(tail).length;
    let used = tokenizer.encode(head(name, [])).length + tailTokens;
    let full = false;
    const room = (files = kept.length) => (full && files > 1 ? budget - editRoom : budget);
    const letLastLeave = () => {
      const last = kept.pop()!;
      leftOut.push(overBudget(last, `${last.tokens} tokens`));
      return last;
    };
    // A file of so many bytes is not looked into: one of as many did not fit, or hardly any would.
    let limit = Infinity;
    let done = 0;
    const files = await weighed(scan.files, buffers, () => breathe(0));
    for (const { file, bytes: weight, content: read } of stayingOrder(files)) {
      await breathe(done++);
      const over = (detail: string) => leftOut.push(overBudget(file, detail));
      if (weight >= limit) {
        over(kib(weight));
        continue;
      }
      const content = read ?? (await contentOf(file, buffers));
      if ('reason' in content) {
        leftOut.push(leftOutFile(file, content, buffers));
        continue;
      }
      const { text } = content;
      const ids = tokenizer.encode(fileText(file.path, text));
      // Its name in the tree counts too; exactly below.
      if (used + ids.length > room(kept.length + 1)) {
        full = true;
        let least = Buffer.byteLength(text);
        over(`${ids.length} tokens`);
        // What edits lack leaves here, so that smaller files can have what is left of its room.
        while (used > room()) {
          const last = letLastLeave();
          used -= last.tokens;
          least = Math.min(least, Buffer.byteLength(last.text));
        }
        limit = room() - used < budget * littleRoom ? 1 : Math.min(limit, least);
        continue;
      }
      used += ids.length;
      const { path, absolutePath, bytes } = file;
      const entry = { path, absolutePath, bytes, ...content, hash: hashOf(text) };
      kept.push({ ...entry, tokens: ids.length, version: 1, ids, file });
    }
    let headTokens: Int32Array;
    let inOrder: typeof kept;
    for (;;) {
      const order = new Map(this.orderOf(kept.map(({ file }) => file)).map((path, i) => [path, i]));
      inOrder = [...kept].sort((a, b) => (order.get(a.path) ?? 0) - (order.get(b.path) ?? 0));
      headTokens = tokenizer.encode(
        head(
          name,
          inOrder.map((file) => file.path),
        ),
      );
      const total = kept.reduce((sum, file) => sum + file.tokens, headTokens.length + tailTokens);
      if (total <= room() || kept.length === 0) break;
      full = true;
      // The tree was larger than reckoned, or edits lack room: the last to stay leave, as many as that needs.
      let excess = total - room();
      do {
        const last = letLastLeave();
        excess -= last.tokens + tokenizer.encode(nameInTree(last.path)).length;
      } while (excess > 0 && kept.length > 1);
    }
    if (kept.length === 0)
      throw leftOut.some((file) => file.reason === 'over-budget')
        ? new LongviewError('window_exceeded', `No file of ${name} fits into the model's window.`)
        : new LongviewError(
            'empty_workspace',
            `There is nothing to read in the folder ${name}: ${whyNothing([...scan.skipped, ...leftOut])}`,
          );
    return {
      base: concat(headTokens, ...inOrder.map((file) => file.ids)),
      basePaths: inOrder.map((file) => file.path),
      baseSizes: inOrder.map((file) => file.tokens),
      overlay: [],
      dead: 0,
      budget,
      entries: new Map(inOrder.map(({ ids: _ids, file: _file, ...entry }) => [entry.path, entry])),
      leftOut,
    };
  }

  private orderOf(files: readonly ScannedFile[]): string[] {
    const before = this.packing?.basePaths ?? [];
    const paths = new Set(files.map(({ path }) => path));
    if (before.length === paths.size && before.every((path) => paths.has(path))) return before;
    return stableOrder(files).map(({ path }) => path);
  }

  /** Appends what changed; undefined when a fresh packing is better. */
  private async append(
    packing: Packing,
    scan: ScanResult,
    options: PackOptions,
  ): Promise<Packing | undefined> {
    const { tokenizer, budget } = this.options;
    const { buffers, rebaseLater } = options;
    const grown = packing.budget > 0 && packing.budget < budget * (1 - littleRoom);
    if (grown && packing.leftOut.some(({ reason }) => reason === 'over-budget')) return undefined;
    const entries = new Map(packing.entries);
    const found = new Set(scan.files.map((file) => file.path));
    const leftOut = new Map(
      packing.leftOut.filter((file) => found.has(file.path)).map((file) => [file.path, file]),
    );
    const deleted = [...entries.keys()].filter((path) => !found.has(path));
    const changed: (Entry & { text: string })[] = [];
    const room = roomIn(budget, packing);
    const breathe = breathing(options, scan.files.length);
    let done = 0;
    for (const file of stableOrder(scan.files)) {
      await breathe(done++);
      const known = entries.get(file.path);
      const former = leftOut.get(file.path) ?? (known?.text === undefined ? undefined : known);
      const key = nameKey(file.absolutePath);
      if (former && buffers?.has(key)) {
        if (buffers.get(key) === undefined) continue;
      } else if (former?.ctimeMs === file.ctimeMs && former.bytes === file.bytes) continue;
      const over = leftOut.get(file.path)?.reason === 'over-budget';
      // Room was short: only for what has become smaller there may be some now.
      if (over && file.bytes >= (former?.bytes ?? 0)) continue;
      const content = await contentOf(file, buffers);
      if ('reason' in content) {
        if (known) deleted.push(file.path);
        leftOut.set(file.path, leftOutFile(file, content, buffers));
        continue;
      }
      const { text } = content;
      const { path, absolutePath, bytes } = file;
      const size = over ? tokenizer.encode(fileText(path, text)).length : 0;
      if (size > room) {
        leftOut.set(path, overBudget(file, `${size} tokens`));
        continue;
      }
      leftOut.delete(path);
      const hash = hashOf(text);
      if (known?.hash === hash) entries.set(path, { ...known, ...content, absolutePath, bytes });
      else
        changed.push({
          path,
          absolutePath,
          ...content,
          hash,
          tokens: 0,
          version: known?.version ?? 0,
          bytes,
        });
    }
    if (deleted.length + changed.length === 0) {
      const same = { ...packing, entries, leftOut: [...leftOut.values()] };
      return room >= 0 && (rebaseLater || isSmall(packing, 1)) ? same : undefined;
    }

    // A file that was the last to be edited and is edited again takes the place of that version.
    const overlay = [...packing.overlay];
    const again = new Map(changed.map((entry) => [entry.path, entry]));
    for (
      let last = overlay.at(-1);
      last && entries.has(last.path) && again.has(last.path);
      last = overlay.at(-1)
    ) {
      again.get(last.path)!.version--;
      again.delete(last.path);
      overlay.pop();
    }
    const inBase = new Set(deleted.length > 0 ? packing.basePaths : []);
    let { dead } = packing;
    for (const path of deleted) {
      overlay.push({ path, ids: tokenizer.encode(deletedFile(path)) });
      if (inBase.has(path)) dead += entries.get(path)?.tokens ?? 0;
      entries.delete(path);
    }
    const breatheAgain = breathing(options, changed.length);
    done = 0;
    for (const entry of changed) {
      await breatheAgain(done++);
      const { path, text } = entry;
      const version = entry.version + 1;
      const ids = tokenizer.encode(version === 1 ? fileText(path, text) : laterVersion(path, text, version));
      overlay.push({ path, ids });
      entries.set(path, { ...entry, tokens: ids.length, version });
    }
    const result = { ...packing, overlay, dead, entries, leftOut: [...leftOut.values()] };
    // Who leaves a folder out wants a shorter prompt, now.
    const wanted = deleted.some(within(scan.skipped.filter(({ reason }) => reason === 'excluded')));
    const small = isSmall(result, rebaseLater && !wanted ? 5 : 1);
    // Without any file left there is no prompt, which packing afresh says.
    return entries.size > 0 && small && roomIn(budget, result) >= 0 ? result : undefined;
  }
}

/** Whether a path is one of these files, or in one of these folders. */
function within(skipped: readonly SkippedFile[]): (path: string) => boolean {
  const paths = new Set(skipped.map(({ path }) => path));
  return (path) =>
    paths.has(path) || [...path.matchAll(/\//g)].some(({ index }) => paths.has(path.slice(0, index + 1)));
}

function leftOutFile(
  { path, bytes, ctimeMs, absolutePath }: ScannedFile,
  why: TextFault,
  buffers: PackOptions['buffers'],
): LeftOutFile {
  // What could not be read is tried again, and what an editor holds is looked at again.
  const settled = why.reason !== 'unreadable' && buffers?.get(nameKey(absolutePath)) === undefined;
  return { path, ...why, ...(settled && { bytes, ctimeMs }) };
}

function overBudget({ path, bytes, ctimeMs }: ScannedFile | Entry, detail: string): LeftOutFile {
  return { path, reason: 'over-budget', detail, bytes, ctimeMs };
}
