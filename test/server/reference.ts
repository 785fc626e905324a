/** The built-in model, its reference outputs, and the folder that they are about. */
import { mkdirSync, mkdtempSync, readFileSync, utimesSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';

export const root = path.resolve(__dirname, '../..');
export const builtInModel = path.join(root, 'media/model/longview-135m-64k.Q5_0.gguf');
process.env.LONGVIEW_ADDON ??= path.join(root, 'dist/longview.node');

interface Reference {
  packed: string;
  packedTokens: number[];
  questions: { question: string; turnTokens: number[]; greedy: number[]; text: string }[];
}

export const reference = JSON.parse(
  readFileSync(path.join(root, 'test/fixtures/native/longview-135m.json'), 'utf8'),
) as Reference;

/** Lays the packed files out on disk, each a second younger than the one before, so that they pack in the same order. */
export function unpackReference(): string {
  const parent = mkdtempSync(path.join(tmpdir(), 'longview-reference-'));
  const folder = path.join(parent, 'vscode-e2e');
  const files = [...reference.packed.matchAll(/<file path="([^"]+)">\n([\s\S]*?)\n<\/file>\n/g)];
  writeFolder(
    folder,
    files.map(([, name = '', text = '']) => [name, `${text}\n`]),
  );
  return folder;
}

export function writeFolder(folder: string, files: [name: string, content: string | Buffer][]): void {
  files.forEach(([name, content], i) => {
    const file = path.join(folder, name);
    mkdirSync(path.dirname(file), { recursive: true });
    writeFileSync(file, content);
    utimesSync(file, 1_700_000_000 + i, 1_700_000_000 + i);
  });
}
