/** When git saw each file change last. */
import { spawn } from 'node:child_process';

/** More commits than this are not looked at; what they alone touched counts as old. */
const maxCommits = 20_000;
const maxSeconds = 5;

/**
 * Path relative to `folder` -> time of the last commit that touched it, in ms. Empty where there is no git or no history;
 * partial after five seconds. Nothing of the repository is run: no pager, no hooks, no signature checks, no file filters.
 */
export function lastCommitTimes(folder: string, signal?: AbortSignal): Promise<Map<string, number>> {
  const times = new Map<string, number>();
  return new Promise((resolve) => {
    const git = spawn(
      'git',
      [
        ...[
          '--no-pager',
          '--no-optional-locks',
          '-c',
          'log.showSignature=false',
          '-c',
          'core.fsmonitor=false',
        ],
        ...[
          'log',
          `--max-count=${maxCommits}`,
          '--no-renames',
          '--no-ext-diff',
          '--no-textconv',
          '--no-merges',
        ],
        ...['--name-only', '--relative', '-z', '--format=format:%x01%ct', '--', '.'],
      ],
      { cwd: folder, stdio: ['ignore', 'pipe', 'ignore'], timeout: maxSeconds * 1000, signal },
    );
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
