/** When git saw each file change last. */
import { spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { gitProgram } from '../platform/program';

/** More commits than this are not looked at; what they alone touched counts as old. */
const maxCommits = 20_000;
const maxSeconds = 5;

/**
 * Settings of a folder's own `.git/config` that would have `git log` run programs, or read files without an end. Aliases cannot
 * hide a command of git's, and no file of the folder is converted.
 */
const settings = [
  ...['log.showSignature=false', 'core.fsmonitor=false', 'core.hooksPath=/dev/null'],
  'core.alternateRefsCommand=',
].flatMap((setting) => ['-c', setting]);

/** Before a commit's time: no file is called so. */
const mark = `commit ${randomBytes(16).toString('hex')} `;
const logArguments = [
  ...['log', `--max-count=${maxCommits}`, '--no-merges', '--no-renames', '--no-ext-diff', '--no-textconv'],
  ...['--no-show-signature', '--no-mailmap', '-O/dev/null', '--name-only', '--relative', '-z'],
  ...[`--format=format:${mark}%ct`, '--', '.'],
];

/**
 * A partial clone fetches what it lacks, by programs that its configuration names: ssh, a remote's `uploadpack`, helpers. An
 * older git does not know the first variable and goes by the second: there is no transport of that name.
 */
const fetchesNothing = { GIT_NO_LAZY_FETCH: '1', GIT_ALLOW_PROTOCOL: 'none' };

interface Asked {
  /** The file of git. */
  program: string;
  folder: string;
  signal?: AbortSignal;
}

function git({ program, folder, signal }: Asked, args: readonly string[]) {
  const child = spawn(program, ['--no-pager', '--no-optional-locks', ...settings, ...args], {
    cwd: folder,
    env: { ...process.env, ...fetchesNothing },
    stdio: ['ignore', 'pipe', 'ignore'],
    timeout: maxSeconds * 1000,
    // On Windows a terminal would open with each question.
    windowsHide: true,
    signal,
  });
  // Its time is over: what it has begun itself, as Git for Windows does, may hold the pipe longer.
  child.once('exit', (_code, ended) => ended !== null && child.stdout.destroy());
  return child;
}

/** The commit that is checked out; empty where there is none. */
function head(asked: Asked): Promise<string> {
  let id = '';
  return new Promise((resolve) => {
    const child = git(asked, ['rev-parse', '--verify', '--quiet', 'HEAD']);
    child.stdout.setEncoding('utf8').on('data', (data: string) => (id += data));
    child.on('error', () => resolve(''));
    child.on('close', (code) => resolve(code === 0 ? id.trim() : ''));
  });
}

interface History {
  commit: string;
  times: ReadonlyMap<string, number>;
}
/** By folder. A long history takes seconds to walk, and every question looks at the files. */
const walked = new Map<string, History>();

/**
 * Path relative to `folder` -> time of the last commit that touched it, in ms. Empty where there is no git or no history;
 * partial after five seconds, or where history is missing. It is walked again when another commit is checked out. Nothing
 * that the folder names is run.
 */
export async function lastCommitTimes(
  folder: string,
  signal?: AbortSignal,
): Promise<ReadonlyMap<string, number>> {
  const program = await gitProgram();
  if (program === undefined) return new Map();
  const asked = { program, folder, signal };
  const commit = await head(asked);
  if (commit === '') return new Map();
  const known = walked.get(folder);
  if (known?.commit === commit) return known.times;
  const times = await walk(asked);
  if (!signal?.aborted) walked.set(folder, { commit, times });
  return times;
}

function walk(asked: Asked): Promise<Map<string, number>> {
  const times = new Map<string, number>();
  return new Promise((resolve) => {
    const log = git(asked, logArguments);
    let time = 0;
    let rest = '';
    // A record is the mark, the seconds and then the commit's paths, each ended by NUL or a line feed after the time.
    const take = (record: string) => {
      const line = record.replace(/^\n/, '');
      if (line.startsWith(mark)) {
        const end = line.indexOf('\n');
        time = Number(line.slice(mark.length, end < 0 ? undefined : end)) * 1000;
        if (end >= 0) take(line.slice(end + 1));
      } else if (line !== '' && !times.has(line)) times.set(line, time);
    };
    log.stdout.setEncoding('utf8').on('data', (data: string) => {
      const records = (rest + data).split('\0');
      rest = records.pop() ?? '';
      records.forEach(take);
    });
    log.on('error', () => resolve(times));
    log.on('close', () => resolve(times));
  });
}
