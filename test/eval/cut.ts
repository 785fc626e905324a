/** Cuts a repository into workspaces of a given size: whole files, relative paths kept. */
import { cpSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, dirname, join } from 'node:path';
import { definitions, type SourceFile } from './symbols';

/** A folder whose packed prompt has at most the wanted number of tokens. */
export interface Cut {
  folder: string;
  files: SourceFile[];
}

const sourceFile = /\.(py|pyi|[cm]?[jt]sx?|md|rst|txt|toml|cfg|ini|json|ya?ml)$/;

export function readRepository(root: string): SourceFile[] {
  const files: SourceFile[] = [];
  for (const name of readdirSync(root, { recursive: true, encoding: 'utf8' })) {
    const path = name.replaceAll('\\', '/');
    if (/(^|\/)(\.git|node_modules|__pycache__|dist|build)(\/|$)/.test(path) || !sourceFile.test(path))
      continue;
    const file = join(root, name);
    if (statSync(file).isFile()) files.push({ path, text: readFileSync(file, 'utf8') });
  }
  return files.sort((a, b) => (a.path < b.path ? -1 : 1));
}

/**
 * Distinct groups of files, each near `bytes` in all, in a seeded order; groups with many literal constants come
 * first, because the questions about values are the scarce ones. Files larger than a group are left out.
 */
export function groupFiles(files: SourceFile[], bytes: number, random: () => number): SourceFile[][] {
  const left = files.filter((file) => file.text.length <= bytes * 0.9);
  for (let i = left.length - 1; i > 0; i--) {
    const j = Math.floor(random() * (i + 1));
    [left[i], left[j]] = [left[j]!, left[i]!];
  }
  const groups: SourceFile[][] = [];
  while (left.length > 0) {
    const group: SourceFile[] = [];
    let used = 0;
    for (const file of [...left]) {
      if (used + file.text.length > bytes) continue;
      group.push(file);
      used += file.text.length;
      left.splice(left.indexOf(file), 1);
    }
    if (used > bytes / 2) groups.push(group);
  }
  const constants = (group: SourceFile[]) => group.flatMap(definitions).filter((d) => d.literal).length;
  return groups.sort((a, b) => constants(b) - constants(a));
}

/** Copies what fits of the files to a temporary folder of the repository's name. */
export function makeCut(
  root: string,
  group: SourceFile[],
  tokens: number,
  count: (text: string) => number,
): Cut {
  // The header has about 50 tokens and the tree a few for each file.
  let used = 100;
  const files = group.filter((file) => {
    const more = count(`<file path="${file.path}">\n${file.text}\n</file>\n`) + count(file.path);
    if (used + more > tokens) return false;
    used += more;
    return true;
  });
  const folder = join(mkdtempSync(join(tmpdir(), 'longview-eval-')), basename(root));
  for (const { path } of files) {
    mkdirSync(dirname(join(folder, path)), { recursive: true });
    cpSync(join(root, path), join(folder, path), { preserveTimestamps: true });
  }
  return { folder, files };
}

export function removeCut(cut: Cut): void {
  rmSync(dirname(cut.folder), { recursive: true });
}
