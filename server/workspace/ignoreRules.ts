/** Rules of .gitignore and .ignore files, as git on Linux reads them: with the case of letters, and those above a folder too. */
import { promises as fs } from 'node:fs';
import path from 'node:path';
import ignore, { type Ignore } from 'ignore';

export interface Rules {
  /** The folder that they are for, relative to the one that is walked; '' for that itself. */
  folder: string;
  /** For rules of a folder above the one that is walked: the way down from there, `src/core/`. */
  down?: string;
  rules: Ignore;
}

export function ignoreRules(lines: string | readonly string[]): Ignore {
  return ignore({ ignorecase: false }).add(lines);
}

/** Whether rules, the later ones counting more, hide a path; a folder's ends in `/`. */
export function hides(stack: readonly Rules[], relative: string): boolean {
  let result = false;
  for (const { folder, down = '', rules } of stack) {
    const inner = down + (folder === '' ? relative : relative.slice(folder.length + 1));
    const verdict = rules.test(inner);
    if (verdict.ignored) result = true;
    else if (verdict.unignored) result = false;
  }
  return result;
}

/**
 * The rules above a folder of a repository, and the repository's own. Those that would hide the folder itself do not count:
 * it was asked for. Empty outside of a repository.
 */
export async function ignoringAbove(root: string): Promise<Rules[]> {
  const names: string[] = [];
  let top = path.resolve(root);
  while (!(await exists(path.join(top, '.git')))) {
    if (path.dirname(top) === top) return [];
    names.unshift(path.basename(top));
    top = path.dirname(top);
  }
  const found: Rules[] = [];
  const take = async (file: string, below: readonly string[]) => {
    const down = below.map((name) => `${name}/`).join('');
    const rules = ignoreRules(await fs.readFile(file, 'utf8').catch(() => ''));
    if (down === '' || !rules.ignores(down)) found.push({ folder: '', down, rules });
  };
  await take(path.join(top, '.git', 'info', 'exclude'), names);
  for (let depth = 0; depth < names.length; depth++)
    for (const name of ['.gitignore', '.ignore'])
      await take(path.join(top, ...names.slice(0, depth), name), names.slice(depth));
  return found;
}

function exists(file: string): Promise<boolean> {
  return fs.access(file).then(
    () => true,
    () => false,
  );
}
