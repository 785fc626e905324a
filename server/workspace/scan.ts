/** Walks the workspace's folders: which files go into the prompt, and why the others do not. Contents are not kept. */
import { promises as fs, opendirSync } from 'node:fs';
import path from 'node:path';
import type { Ignore } from 'ignore';
import { LongviewError, throwIfAborted } from '../errors';
import { globWithSlashes, nameKey, wayDown } from '../platform/fileNames';
import type { FileEncoding, SkippedFile, SkipReason } from '../protocol';
import { namedEncodings } from './encoding';
import { lastCommitTimes } from './gitHistory';
import { Cost, deepest, hiding, ignoringAbove, rulesOfFile, settingRules, type Rules } from './ignoreRules';
import { kib } from './kib';
import { listFolder, type Listed } from './listFolder';
import { isSecretName } from './secrets';

export interface ScannedFile {
  /** Relative to its folder, `/` separators; prefixed by the folder's name where there are several. */
  path: string;
  absolutePath: string;
  bytes: number;
  mtimeMs: number;
  /** Changes with every write, also where someone sets the modification time back. */
  ctimeMs: number;
  /** When it last changed, by git's history where there is one, else mtimeMs: what the order in the prompt goes by. */
  changedMs: number;
  /** Of what is read of it, at most: absent where the whole file is smaller. */
  maxTextBytes?: number;
  /** What it is said to be in where it is not UTF-8. */
  encoding?: string;
}

export interface Root {
  name: string;
  /** A path; of what is on no disk of this machine, as an editor's virtual folders, their URI. */
  folder: string;
}

export interface ScanOptions {
  /** Globs in gitignore syntax. `include` brings back what a default or an ignore file leaves out. */
  include?: string[];
  exclude?: string[];
  /** Larger files are left out, notebooks by the size of what is read of them. Default: 1 MiB. */
  maxFileBytes?: number;
  /** The first that fits a file counts. */
  encodings?: readonly FileEncoding[];
  /** Ask git when files last changed. Off in folders that are not trusted: git reads their configuration. */
  gitHistory?: boolean;
  signal?: AbortSignal;
}

export interface ScanResult {
  files: ScannedFile[];
  skipped: SkippedFile[];
}

/** Folders that nobody wrote by hand, left out whole. */
const folderReasons: Record<string, SkipReason> = {
  '.hg': 'ignored',
  '.svn': 'ignored',
  node_modules: 'dependency',
  bower_components: 'dependency',
  vendor: 'dependency',
  '.venv': 'dependency',
  venv: 'dependency',
  'site-packages': 'dependency',
  Pods: 'dependency',
  __pycache__: 'build-output',
  '.mypy_cache': 'build-output',
  '.pytest_cache': 'build-output',
  '.ipynb_checkpoints': 'build-output',
  dist: 'build-output',
  build: 'build-output',
  out: 'build-output',
  target: 'build-output',
  '.next': 'build-output',
  '.gradle': 'build-output',
  '.vs': 'build-output',
  DerivedData: 'build-output',
  coverage: 'build-output',
};

const fileRules: [RegExp, SkipReason][] = [
  [
    /^(package-lock\.json|npm-shrinkwrap\.json|yarn\.lock|pnpm-lock\.yaml|poetry\.lock|uv\.lock|Pipfile\.lock|Cargo\.lock|Gemfile\.lock|composer\.lock|go\.sum|flake\.lock)$/,
    'lock-file',
  ],
  [/\.min\.(js|css|mjs)$|[.-]bundle\.js$|\.map$/, 'minified'],
];

export const isNotebook = (file: string) => file.endsWith('.ipynb');

/** Most of it may be pictures, which are left out; a larger one would keep other work waiting for more than half a second. */
const largestNotebook = 16 << 20;

/** The editor writes it, as when the panel leaves a folder out: the prompt would get a file with each one that goes. */
const editorSettings = /(^|\/)\.vscode\/settings\.json$/;

/** Where a glob can first name something inside a folder: `vendor/mine/` of `/vendor/mine/**`; '' where that is anywhere. */
function folderOfGlob(glob: string): string {
  const literal = /^\/?([^*?[\\]*)/.exec(glob)?.[1] ?? '';
  return literal.slice(0, literal.lastIndexOf('/') + 1);
}

function whyNoFolder(root: string, { code, message }: NodeJS.ErrnoException): string {
  if (!path.isAbsolute(root)) return `${root} is on no disk of this machine: it cannot be read.`;
  if (code === 'ENOENT') return `There is no folder ${root}: it may have been moved or deleted.`;
  if (code === 'ENOTDIR') return `${root} is no folder.`;
  if (code === 'EACCES' || code === 'EPERM') return `The folder ${root} cannot be read: permission denied.`;
  return `The folder ${root} cannot be read: ${message}`;
}

function noFolder(root: string, cause: unknown = {}): LongviewError {
  return new LongviewError('no_workspace', whyNoFolder(root, cause as NodeJS.ErrnoException), { cause });
}

/** Throws LongviewError `no_workspace`, as a scan of it would. */
export function checkFolder(root: string): void {
  try {
    opendirSync(root).closeSync();
  } catch (error) {
    throw noFolder(root, error);
  }
}

/** Where a folder stands among several. */
interface PlaceOfFolder {
  /** What stands before the paths in the prompt: `app/`, or nothing. */
  prefix: string;
  /** Of all of them: a pattern that begins with one is about that folder alone. */
  names: readonly string[];
  /** Names of those that lie in this one, by the key of their path in it: their files are read as theirs. */
  inner: ReadonlyMap<string, string>;
}

const alone: PlaceOfFolder = { prefix: '', names: [], inner: new Map() };

interface Globs {
  all: Ignore;
  inFolder: Ignore;
}

function globsOf(patterns: readonly string[] = [], names: readonly string[]): Globs {
  const plain = (pattern: string) => nameKey(pattern.replace(/^!?\/?/, '').replace(/\\(.)/g, '$1'));
  const inFolder = patterns.filter(
    (pattern) => !names.some((name) => plain(pattern).startsWith(nameKey(`${name}/`))),
  );
  return { all: settingRules(patterns), inFolder: settingRules(inFolder) };
}

/** Where a disk keeps no time of the last change, as exFAT does on Windows, that of the last writing. */
export const changeTime = (ctimeMs: number, mtimeMs: number) => (ctimeMs > 0 ? ctimeMs : mtimeMs);

class Scanner {
  readonly files: ScannedFile[] = [];
  readonly skipped: SkippedFile[] = [];
  readonly cost = new Cost();
  private readonly include: Globs;
  private readonly exclude: Globs;
  private readonly prefix: string;
  private readonly inner: ReadonlyMap<string, string>;
  private readonly encodingOf: (absolutePath: string) => string | undefined;

  constructor(
    private readonly root: string,
    private readonly options: ScanOptions,
    { prefix, names, inner }: PlaceOfFolder,
  ) {
    this.prefix = prefix;
    this.inner = inner;
    this.include = globsOf(options.include, names);
    this.exclude = globsOf(options.exclude, names);
    this.encodingOf = namedEncodings(options.encodings);
  }

  /** `narrow`: a folder that is left out, in which the settings include something; only that is taken. */
  async walk(relative: string, above: readonly Rules[], narrow = false): Promise<void> {
    throwIfAborted(this.options.signal);
    if (relative.split('/').length > deepest)
      return this.skip(`${relative}/`, 'unreadable', `more than ${deepest} folders deep`);
    const folder = path.join(this.root, relative);
    let entries: Listed[];
    try {
      entries = await listFolder(folder);
    } catch (error) {
      if (relative === '') throw noFolder(this.root, error);
      this.skip(`${relative}/`, 'unreadable');
      return;
    }
    const stack = [...above];
    for (const name of ['.gitignore', '.ignore']) {
      if (!entries.some((entry) => entry.name === name && entry.kind.isFile())) continue;
      stack.push({ folder: relative, rules: await rulesOfFile(path.join(folder, name), this.cost) });
    }
    for (const entry of entries) {
      const { name, kind } = entry;
      const inner = relative === '' ? name : `${relative}/${name}`;
      // Of a worktree or a submodule it is a file. No setting brings it back.
      if (name === '.git') {
        if (!narrow) this.skip(kind.isDirectory() ? `${inner}/` : inner, 'ignored');
      } else if (kind.isDirectory()) await this.folder(inner, name, stack, narrow);
      else if (!narrow || this.matches(this.include, inner)) await this.file(inner, entry, stack);
    }
  }

  /** By the path in its folder, or as it stands in the prompt, where the folder's name comes first. */
  private matches({ inFolder, all }: Globs, relative: string): boolean {
    return inFolder.ignores(relative) || (this.prefix !== '' && all.ignores(this.prefix + relative));
  }

  private skip(file: string, reason: SkipReason, detail?: string): void {
    this.skipped.push({ path: file, reason, detail });
  }

  /** Whether the settings include something inside of a folder, by a path that leads there. */
  private includesWithin(relative: string): boolean {
    return (this.options.include ?? []).some((glob) => {
      const inside = nameKey(folderOfGlob(glob));
      if (inside === '') return false;
      return [`${relative}/`, `${this.prefix}${relative}/`]
        .map(nameKey)
        .some((folder) => inside.startsWith(folder) || (/[*?[]/.test(glob) && folder.startsWith(inside)));
    });
  }

  private async folder(
    relative: string,
    name: string,
    stack: readonly Rules[],
    narrow: boolean,
  ): Promise<void> {
    const elsewhere = this.inner.get(nameKey(relative));
    if (elsewhere !== undefined) return this.skip(`${relative}/`, 'read-elsewhere', `as ${elsewhere}/`);
    if (this.matches(this.exclude, `${relative}/`)) return this.skip(`${relative}/`, 'excluded');
    if (this.matches(this.include, `${relative}/`)) return this.walk(relative, stack);
    const known = Object.hasOwn(folderReasons, name) ? folderReasons[name] : undefined;
    const hidden = known ? undefined : hiding(stack, `${relative}/`);
    const reason = known ?? (hidden && 'ignored');
    if (!reason && !narrow) return this.walk(relative, stack);
    const within = this.includesWithin(relative);
    // What lies in a folder that is left out is not listed.
    const detail = within ? 'but for what is included' : hidden?.detail;
    if (reason && !narrow) this.skip(`${relative}/`, reason, detail);
    if (within) await this.walk(relative, stack, true);
  }

  private async file(relative: string, { name, kind }: Listed, stack: readonly Rules[]): Promise<void> {
    // A link may leave the workspace or come back to a folder above; what it names is read under its own name.
    if (kind.isSymbolicLink()) return this.skip(relative, 'link-loop', 'symbolic links are not followed');
    if (!kind.isFile()) return this.skip(relative, 'not-a-file');
    if (/["<>\p{Cc}]/u.test(relative))
      return this.skip(relative, 'unreadable', 'its name would break the frame of the prompt');
    if (this.matches(this.exclude, relative)) return this.skip(relative, 'excluded');
    if (isSecretName(name)) return this.skip(relative, 'secret');
    if (!this.matches(this.include, relative)) {
      const rule = fileRules.find(([pattern]) => pattern.test(name));
      if (rule) return this.skip(relative, rule[1]);
      if (editorSettings.test(relative)) return this.skip(relative, 'generated');
      const hidden = hiding(stack, relative);
      if (hidden) return this.skip(relative, 'ignored', hidden.detail);
    }
    const absolutePath = path.join(this.root, relative);
    try {
      const { size, mtimeMs, ctimeMs: changed } = await fs.lstat(absolutePath);
      const ctimeMs = changeTime(changed, mtimeMs);
      const limit = this.options.maxFileBytes ?? 1 << 20;
      if (size > (isNotebook(relative) ? Math.max(limit, largestNotebook) : limit))
        return this.skip(relative, 'too-large', kib(size));
      const times = { mtimeMs, ctimeMs, changedMs: mtimeMs };
      const encoding = this.encodingOf(absolutePath);
      this.files.push({
        path: relative,
        absolutePath,
        bytes: size,
        ...times,
        ...(size > limit && { maxTextBytes: limit }),
        ...(encoding && { encoding }),
      });
    } catch {
      this.skip(relative, 'unreadable');
    }
  }
}

/** Throws LongviewError `no_workspace` when the folder itself cannot be read, `cancelled` when the signal is aborted. */
export async function scanFolder(
  root: string,
  options: ScanOptions = {},
  place: PlaceOfFolder = alone,
): Promise<ScanResult> {
  if (!path.isAbsolute(root)) throw noFolder(root);
  const { include, exclude } = options;
  const slashed = { include: include?.map(globWithSlashes), exclude: exclude?.map(globWithSlashes) };
  const scanner = new Scanner(root, { ...options, ...slashed }, place);
  await scanner.walk('', await ignoringAbove(root, scanner.cost));
  if (options.gitHistory) {
    const times = await lastCommitTimes(root, options.signal);
    for (const file of scanner.files) file.changedMs = times.get(file.path) ?? file.mtimeMs;
  }
  return { files: scanner.files, skipped: scanner.skipped };
}

/** What the paths of each of several folders begin with. */
function namesOf(roots: readonly Root[]): string[] {
  const taken = new Set<string>();
  return roots.map(({ name }) => {
    const plain = name.replace(/[/"<>\p{Cc}]/gu, '_');
    let own = plain;
    for (let n = 2; taken.has(own); n++) own = `${plain}-${n}`;
    taken.add(own);
    return own;
  });
}

/** Which of the folders lie in a folder, by their path in it; of keys. */
function innerOf(folder: string, folders: readonly string[], names: readonly string[]): Map<string, string> {
  const ways = folders.map((other, i) => [wayDown(folder, other) ?? '', names[i]!] as const);
  return new Map(ways.filter(([way]) => way !== ''));
}

/**
 * The same for a workspace of several folders: paths begin with the folder's name, made unique. What lies in two of them is
 * read once, as the inner one's. One that cannot be read, as a workspace may name on another machine, is listed as left out
 * while there are others.
 */
export async function scanWorkspace(roots: readonly Root[], options: ScanOptions = {}): Promise<ScanResult> {
  if (roots.length === 0)
    throw new LongviewError('no_workspace', 'No folder is open: open one to ask about it.');
  if (roots.length === 1) return scanFolder(roots[0]!.folder, options);
  const result: ScanResult = { files: [], skipped: [] };
  const unreadable: LongviewError[] = [];
  const names = namesOf(roots);
  const real = await Promise.all(
    roots.map(async ({ folder }) => nameKey(await fs.realpath(folder).catch(() => folder))),
  );
  for (const [i, { folder }] of roots.entries()) {
    const prefix = names[i]!;
    const same = real.indexOf(real[i]!);
    if (same < i) {
      result.skipped.push({ path: `${prefix}/`, reason: 'read-elsewhere', detail: `as ${names[same]!}/` });
      continue;
    }
    const place = { prefix: `${prefix}/`, names, inner: innerOf(real[i]!, real, names) };
    const found = await scanFolder(folder, options, place).catch((error: unknown) => {
      if (!(error instanceof LongviewError && error.code === 'no_workspace')) throw error;
      unreadable.push(error);
      result.skipped.push({ path: `${prefix}/`, reason: 'unreadable', detail: error.message });
    });
    if (!found) continue;
    const { files, skipped } = found;
    for (const file of files) result.files.push({ ...file, path: `${prefix}/${file.path}` });
    for (const file of skipped) result.skipped.push({ ...file, path: `${prefix}/${file.path}` });
  }
  if (unreadable.length === new Set(real).size) throw unreadable[0]!;
  return result;
}
