/** The text around the files: the only form that the built-in model knows, byte for byte (media/model/README.md). */
import { createHash } from 'node:crypto';

const instructions =
  'You answer questions about the repository below. Base every answer on its files and name where you found it as ' +
  '[path#symbol]. If the files do not answer the question, say so.\n\n';

/** Of a file: what it adds to the tree. */
export function nameInTree(path: string): string {
  return ` ${path.slice(path.lastIndexOf('/') + 1)}`;
}

function tree(paths: readonly string[]): string {
  const folders = new Map<string, string>();
  for (const file of paths) {
    const slash = file.lastIndexOf('/');
    const folder = slash < 0 ? '.' : file.slice(0, slash);
    folders.set(folder, `${folders.get(folder) ?? ''}${nameInTree(file)}`);
  }
  const lines = [...folders]
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([folder, names]) => `${folder}/:${names}\n`);
  return `<tree>\n${lines.join('')}</tree>\n`;
}

/** Instructions, name (without what would end its place in the frame) and tree. */
export function head(name: string, paths: readonly string[]): string {
  return `${instructions}<repository name="${name.replace(/["<>\p{Cc}]/gu, '_')}">\n${tree(paths)}`;
}

export const tail = '</repository>';

export function fileText(path: string, text: string): string {
  return `<file path="${path}">\n${text.trimEnd()}\n</file>\n`;
}

/** A file that was edited since it was framed: the later version counts. */
export function laterVersion(path: string, text: string, version: number): string {
  return `<file path="${path}" version="${version}">\n${text.trimEnd()}\n</file>\n`;
}

export function deletedFile(path: string): string {
  return `<deleted path="${path}"/>\n`;
}

/** Changes when the text around the files does: prompts of the former kind are not gone on with. */
export function frameFingerprint(): string {
  const all = [
    head('name', ['a', 'b/c']),
    fileText('a', 'text'),
    laterVersion('a', 'text', 2),
    deletedFile('a'),
    tail,
  ];
  return createHash('sha256').update(all.join('\0')).digest('hex');
}
