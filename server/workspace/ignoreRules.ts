/** Rules of .gitignore and .ignore files, as git on this system reads them: those above a folder too, with the case of letters on Linux. */
import { constants, promises as fs } from 'node:fs';
import path from 'node:path';
import ignore, { type Ignore, type PatternParams } from 'ignore';
import { LongviewError } from '../errors';
import { ignoresCase } from '../platform/fileNames';

export interface Rules {
  /** The folder that they are for, relative to the one that is walked; '' for that itself. */
  folder: string;
  /** For rules of a folder above the one that is walked: the way down from there, `src/core/`. */
  down?: string;
  rules: Ignore;
}

export function ignoreRules(lines: Parameters<Ignore['add']>[0]): Ignore {
  return ignore({ ignorecase: ignoresCase() }).add(lines);
}

/** Of an ignore file; what is longer was not written by hand. */
const maxBytes = 1 << 20;
/**
 * A rule that does not match costs the depth of the path to the power of this. Repositories come from anywhere: of a line of
 * an ignore file that asks for more, the beginning counts, which hides what the line would hide, and may hide more.
 */
const maxDoubleStars = 3;
const cut = (most: number) => `by the beginning of a pattern with more than ${most} \`**\``;
/** Folders on the way to a file that is looked at, for the same reason. */
export const deepest = 128;

/** What the rules of all ignore files of a scan may cost, together: as much as a hundred of the costliest. */
export class Cost {
  private left = 100 * deepest ** maxDoubleStars;

  /** How many `**` of a rule with so many count. */
  most(stars: number): number {
    this.left -= deepest ** Math.min(stars, maxDoubleStars);
    return this.left < 0 ? 1 : maxDoubleStars;
  }
}

const collapsed = (rule: string) => rule.replace(/(^|\/)(?:\*\*\/)+/g, '$1**/');
const starsIn = (rule: string) => rule.split('**').length - 1;

/** Of a costly rule, the part with as many `**` as may be. One that brings files back is dropped: they stay hidden. */
function affordable(rule: string, cost: Cost): PatternParams[] {
  const names = rule.replace(/^!/, '').split('/');
  // Beside other characters of a name, two stars are as good and as cheap as one.
  const deep = names.flatMap((name, i) => (/^\*\*\s*$/.test(name) ? [i] : []));
  // At the end it matches at once.
  const most = cost.most(deep.filter((i) => i < names.length - 1).length);
  if (deep.length <= most) return [{ pattern: rule }];
  if (rule.startsWith('!')) return [];
  return [{ pattern: names.slice(0, deep[most - 1]! + 1).join('/'), mark: cut(most) }];
}

/** Patterns of the settings, which a repository can bring along too. Throws LongviewError `invalid_argument` for a costly one. */
export function settingRules(patterns: readonly string[] = []): Ignore {
  const rules = patterns.map(collapsed);
  const cost = new Cost();
  for (const rule of rules) {
    const most = cost.most(starsIn(rule));
    if (starsIn(rule) > most)
      throw new LongviewError(
        'invalid_argument',
        `The pattern ${JSON.stringify(rule.slice(0, 100))} in longview.files has more than ${most} \`**\`: write it with fewer.`,
      );
  }
  return ignoreRules(rules);
}

/** The rules of an ignore file; none where there is no such file. */
export async function rulesOfFile(file: string, cost: Cost): Promise<Ignore> {
  const lines = (await readStart(file)).split(/\r?\n/).map(collapsed);
  return ignoreRules(lines.flatMap((line) => affordable(line, cost)));
}

/** Whole lines, as many as are looked at; '' for what is no file. Waits for no pipe. */
async function readStart(file: string): Promise<string> {
  try {
    const handle = await fs.open(file, constants.O_RDONLY | constants.O_NONBLOCK);
    try {
      const status = await handle.stat();
      const bytes = Buffer.alloc(Math.min(status.size, maxBytes));
      const { bytesRead } = await handle.read(bytes, 0, bytes.length, 0);
      const text = bytes.toString('utf8', 0, bytesRead);
      return status.size > maxBytes ? text.slice(0, text.lastIndexOf('\n') + 1) : text;
    } finally {
      await handle.close();
    }
  } catch {
    return '';
  }
}

/** By which rule, the later ones counting more, a path is hidden; a folder's ends in `/`. `detail`: what there is to say of that. */
export function hiding(stack: readonly Rules[], relative: string): { detail?: string } | undefined {
  let result: { detail?: string } | undefined;
  for (const { folder, down = '', rules } of stack) {
    const inner = down + (folder === '' ? relative : relative.slice(folder.length + 1));
    const verdict = rules.test(inner);
    if (verdict.ignored) result = { detail: verdict.rule?.mark };
    else if (verdict.unignored) result = undefined;
  }
  return result;
}

/**
 * The rules above a folder of a repository, and the repository's own. Those that would hide the folder itself do not count:
 * it was asked for. Empty outside of a repository.
 */
export async function ignoringAbove(root: string, cost: Cost): Promise<Rules[]> {
  const names: string[] = [];
  // A link's own place is in another repository, or in none.
  let top = await fs.realpath(root).catch(() => path.resolve(root));
  while (!(await exists(path.join(top, '.git')))) {
    if (path.dirname(top) === top) return [];
    names.unshift(path.basename(top));
    top = path.dirname(top);
  }
  const found: Rules[] = [];
  const take = async (file: string, below: readonly string[]) => {
    const down = below.map((name) => `${name}/`).join('');
    const rules = await rulesOfFile(file, cost);
    if (down === '' || !rules.ignores(down)) found.push({ folder: '', down, rules });
  };
  await take(path.join(await gitFolder(top), 'info', 'exclude'), names);
  for (let depth = 0; depth < names.length; depth++)
    for (const name of ['.gitignore', '.ignore'])
      await take(path.join(top, ...names.slice(0, depth), name), names.slice(depth));
  return found;
}

/** `.git`, or where that leads in a worktree and a submodule. What is not there has no rules. */
async function gitFolder(top: string): Promise<string> {
  const git = path.join(top, '.git');
  const link = /^gitdir: ([^\r\n]+)/.exec(await readStart(git))?.[1];
  const folder = link === undefined ? git : path.resolve(top, link);
  const common = (await readStart(path.join(folder, 'commondir'))).trim();
  return path.resolve(folder, common);
}

function exists(file: string): Promise<boolean> {
  return fs.access(file).then(
    () => true,
    () => false,
  );
}
