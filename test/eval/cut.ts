/** Cuts a repository into workspaces of a given size: whole files, relative paths kept. */
import { cpSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, dirname, join } from 'node:path';
import type { ContextResult, Settings } from '../../server/protocol';
import { ServerClient } from './serverClient';
import { definitions, type SourceFile } from './symbols';

/** A folder whose packed prompt has at most the wanted number of tokens. */
export interface Cut {
  folder: string;
  files: SourceFile[];
  /** Tokens of the packed files and their frame, counted by the server. */
  tokens: number;
  server: ServerClient;
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

/** Copies the files to a temporary folder of the repository's name and starts a server that takes all of them. */
export async function startCut(
  root: string,
  group: SourceFile[],
  tokens: number,
  settings: Partial<Settings>,
): Promise<Cut> {
  let files = group;
  for (;;) {
    const folder = join(mkdtempSync(join(tmpdir(), 'longview-eval-')), basename(root));
    for (const { path } of files) {
      mkdirSync(dirname(join(folder, path)), { recursive: true });
      cpSync(join(root, path), join(folder, path));
    }
    const server = await ServerClient.start(folder, settings);
    const context = await server.context();
    if (context.usedTokens <= tokens || files.length === 1) {
      const packed = new Set(context.files.map((file) => file.path));
      return {
        folder,
        files: files.filter((file) => packed.has(file.path)),
        tokens: context.usedTokens,
        server,
      };
    }
    await server.stop();
    rmSync(dirname(folder), { recursive: true });
    files = dropTo(files, tokens, context);
  }
}

export async function endCut(cut: Cut): Promise<void> {
  await cut.server.stop();
  rmSync(dirname(cut.folder), { recursive: true });
}

/** Leaves out the last files until the rest fits by the server's own counts; always at least one. */
function dropTo(files: SourceFile[], tokens: number, context: ContextResult): SourceFile[] {
  const counts = new Map(context.files.map((file) => [file.path, file.tokens]));
  let excess = context.usedTokens - tokens;
  const kept = [...files];
  while (excess > 0 && kept.length > 1) excess -= counts.get(kept.pop()!.path) ?? 0;
  return kept;
}
