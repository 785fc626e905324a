/** What of a scanned file goes into the prompt. */
import { nameKey } from '../platform/fileNames';
import { withLineFeeds } from '../workspace/encoding';
import { readText, textOf, type FileText, type TextFault } from '../workspace/readText';
import { isNotebook, type ScannedFile } from '../workspace/scan';

/** Texts of open documents that count instead of the file's, by the keys of their paths; undefined: leave it as it is packed. */
export type Buffers = ReadonlyMap<string, string | undefined>;

/** `ctimeMs` -1: not the file's own text. */
export type Content = (FileText & { ctimeMs: number }) | TextFault;

/** The text that counts: an open document's, else the file's. */
export async function contentOf(file: ScannedFile, buffers: Buffers | undefined): Promise<Content> {
  const buffer = buffers?.get(nameKey(file.absolutePath));
  if (buffer === undefined) {
    if (file.bytes === 0) return { reason: 'empty' };
    const content = await readText(file);
    return 'reason' in content ? content : { ...content, ctimeMs: file.ctimeMs };
  }
  const content = textOf(file, withLineFeeds(buffer));
  return 'reason' in content ? content : { ...content, ctimeMs: -1 };
}

/** Files with what they weigh where not all fit: notebooks, already read, their text, where most of the file may be pictures. */
export async function weighed(
  files: readonly ScannedFile[],
  buffers: Buffers | undefined,
  breathe: () => Promise<void>,
): Promise<{ file: ScannedFile; path: string; bytes: number; content?: Content }[]> {
  const all = [];
  for (const file of files) {
    const { path, bytes } = file;
    if (!isNotebook(path)) {
      all.push({ file, path, bytes });
      continue;
    }
    await breathe();
    const content = await contentOf(file, buffers);
    all.push({ file, path, bytes: 'text' in content ? Buffer.byteLength(content.text) : bytes, content });
  }
  return all;
}
