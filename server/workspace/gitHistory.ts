/** When git saw each file change last. */
import { spawn } from 'node:child_process';

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

const log = [
  ...['log', `--max-count=${maxCommits}`, '--no-merges', '--no-renames', '--no-ext-diff', '--no-textconv'],
  ...['--no-show-signature', '--no-mailmap', '-O/dev/null', '--name-only', '--relative', '-z'],
  ...['--format=format:%x01%ct', '--', '.'],
];

/**
 * A partial clone fetches what it lacks, by programs that its configuration names: ssh, a remote's `uploadpack`, helpers. An
 * older git does not know the first variable and goes by the second: there is no transport of that name.
 */
const fetchesNothing = { GIT_NO_LAZY_FETCH: '1', GIT_ALLOW_PROTOCOL: 'none' };

/**
 * Path relative to `folder` -> time of the last commit that touched it, in ms. Empty where there is no git or no history;
 * partial after five seconds, or where history is missing. Nothing that the folder names is run.
 */
export function lastCommitTimes(folder: string, signal?: AbortSignal): Promise<Map<string, number>> {
  const times = new Map<string, number>();
  return new Promise((resolve) => {
    const git = spawn('git', ['--no-pager', '--no-optional-locks', ...settings, ...log], {
      cwd: folder,
      env: { ...process.env, ...fetchesNothing },
      stdio: ['ignore', 'pipe', 'ignore'],
      timeout: maxSeconds * 1000,
      signal,
    });
    let time = 0;
    let rest = '';
    // A record is "\x01<seconds>" and then the commit's paths, each ended by NUL or a line feed after the time.
    const take = (record: string) => {
      const line = record.replace(/^\n/, '');
      if (line.startsWith('\x01')) {
        const end = line.indexOf('\n');
        time = Number(end < 0 ? line.slice(1) : line.slice(1, end)) * 1000;
        if (end >= 0) take(line.slice(end + 1));
      } else if (line !== '' && !times.has(line)) times.set(line, time);
    };
    git.stdout.setEncoding('utf8').on('data', (data: string) => {
      const records = (rest + data).split('\0');
      rest = records.pop() ?? '';
      records.forEach(take);
    });
    git.on('error', () => resolve(times));
    git.on('close', () => resolve(times));
  });
}
