/**
 * The repository as one prompt, in the only form that the built-in model knows, byte for byte: instructions, tree, files
 * (media/model/README.md). Other models get the same text through their own chat template.
 */
import { LongviewError, throwIfAborted } from '../errors';
import type { ContextFile, SkippedFile } from '../protocol';
import type { Tokenizer } from '../tokenizer/types';
import { readText, type ScannedFile, type ScanResult } from '../workspace/scan';
import { concat } from './template';

export interface PackedFile extends ContextFile {
  absolutePath: string;
  text: string;
}

export interface PackedRepository {
  files: PackedFile[];
  skipped: SkippedFile[];
  /** Of the whole system text. */
  tokens: Int32Array;
}

const instructions =
  'You answer questions about the repository below. Base every answer on its files and name where you found it as ' +
  '[path#symbol]. If the files do not answer the question, say so.\n\n';

/** What helps least with questions about code goes first when not all fits: smaller numbers stay. */
function worth(file: string): number {
  if (
    /(^|\/)(tests?|__tests__|spec|specs|fixtures|testdata|examples?|samples?|locales?|i18n|docs?)\//.test(
      file,
    )
  )
    return 2;
  return /\.(json|ya?ml|csv|tsv|svg|xml|txt|md|rst|lock|po)$/.test(file) ? 1 : 0;
}

/** What changes rarely first: by modification time, then path; an edit then leaves a long common prefix. */
export function stableOrder<T extends ScannedFile>(files: readonly T[]): T[] {
  return [...files].sort((a, b) => a.mtimeMs - b.mtimeMs || (a.path < b.path ? -1 : 1));
}

function tree(paths: readonly string[]): string {
  const folders = new Map<string, string[]>();
  for (const file of paths) {
    const slash = file.lastIndexOf('/');
    const folder = slash < 0 ? '.' : file.slice(0, slash);
    folders.set(folder, [...(folders.get(folder) ?? []), file.slice(slash + 1)]);
  }
  const lines = [...folders]
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([folder, names]) => `${folder}/: ${names.join(' ')}\n`);
  return `<tree>\n${lines.join('')}</tree>\n`;
}

/** `name` without what would end its place in the frame. */
function head(name: string, paths: readonly string[]): string {
  return `${instructions}<repository name="${name.replace(/["<>\p{Cc}]/gu, '_')}">\n${tree(paths)}`;
}

/**
 * Packs what fits into `budget` tokens. Left out when not all fits: whole files, those that help least with questions about
 * code first (tests, examples and documents, then data, then sources), the largest of a kind first; each is listed.
 * Throws LongviewError `empty_workspace`, `cancelled`.
 */
export async function packRepository(
  scan: ScanResult,
  options: { name: string; tokenizer: Tokenizer; budget: number; signal?: AbortSignal },
): Promise<PackedRepository> {
  const { tokenizer, budget, signal } = options;
  const skipped = [...scan.skipped];
  const read: (PackedFile & { ids: Int32Array })[] = [];
  for (const file of stableOrder(scan.files)) {
    throwIfAborted(signal);
    const content = await readText(file);
    if ('reason' in content) {
      skipped.push({ path: file.path, reason: content.reason });
      continue;
    }
    const ids = tokenizer.encode(`<file path="${file.path}">\n${content.text.trimEnd()}\n</file>\n`);
    read.push({
      path: file.path,
      absolutePath: file.absolutePath,
      text: content.text,
      tokens: ids.length,
      ids,
    });
  }
  if (read.length === 0)
    throw new LongviewError(
      'empty_workspace',
      `There is no text to read in ${options.name}: every file was left out.`,
    );

  const tail = tokenizer.encode('</repository>');
  const kept = new Set(read);
  const files = () => read.filter((file) => kept.has(file));
  const headTokens = () =>
    tokenizer.encode(
      head(
        options.name,
        files().map((file) => file.path),
      ),
    );
  let used = read.reduce((sum, file) => sum + file.tokens, headTokens().length + tail.length);
  const leaving = [...read].sort(
    (a, b) => worth(b.path) - worth(a.path) || b.tokens - a.tokens || (a.path < b.path ? 1 : -1),
  );
  for (const file of leaving) {
    if (used <= budget) break;
    kept.delete(file);
    used -= file.tokens;
    skipped.push({ path: file.path, reason: 'over-budget', detail: `${file.tokens} tokens` });
  }
  if (kept.size === 0)
    throw new LongviewError('window_exceeded', `No file of ${options.name} fits into the model's window.`);
  const tokens = concat(headTokens(), ...files().map((file) => file.ids), tail);
  return { files: files().map(({ ids: _ids, ...file }) => file), skipped, tokens };
}
