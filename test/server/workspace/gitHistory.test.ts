/** A folder's own git configuration names programs: none is run. */
import { execFileSync } from 'node:child_process';
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  renameSync,
  rmSync,
  rmdirSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { gitProgram, programOnPath } from '../../../server/platform/program';
import { lastCommitTimes } from '../../../server/workspace/gitHistory';
import { scanFolder } from '../../../server/workspace/scan';
import { onPlatform } from '../platform/onPlatform';
import { writeFolder } from '../reference';

let parent: string;
let folder: string;
let trap: string;

const git = (...args: string[]) =>
  execFileSync('git', ['-c', 'user.name=x', '-c', 'user.email=x@x', ...args], {
    cwd: folder,
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'ignore'],
  }).trim();

const configure = (settings: Record<string, string>) => {
  for (const [key, value] of Object.entries(settings)) git('config', key, value);
};

/** A program that leaves a file behind, and signs what it is given. */
function script(name: string): string {
  const file = path.join(parent, name);
  const signature = '-----BEGIN PGP SIGNATURE-----\\n\\nx\\n-----END PGP SIGNATURE-----\\n';
  writeFileSync(
    file,
    `#!/bin/sh\ntouch '${parent}/ran'\ncase "$*" in *-bsau*) cat > /dev/null;; esac\nprintf -- '${signature}'\necho '[GNUPG:] SIG_CREATED ' >&2\n`,
  );
  chmodSync(file, 0o700);
  return file;
}

const ran = () => existsSync(path.join(parent, 'ran'));

beforeEach(() => {
  parent = mkdtempSync(path.join(tmpdir(), 'longview-history-'));
  folder = path.join(parent, 'repository');
  trap = script('trap');
  writeFolder(folder, [
    ['a.ts', 'x = 1\n'],
    ['.gitattributes', '* diff=trap filter=trap\n'],
  ]);
  git('init', '-q');
  git('add', '.');
  git('-c', `gpg.program=${trap}`, 'commit', '-q', '-S', '-m', 'x');
  rmSync(path.join(parent, 'ran'));
});

afterEach(() => rmSync(parent, { recursive: true }));

describe('a partial clone that lacks a tree', () => {
  beforeEach(() => {
    const tree = git('rev-parse', 'HEAD^{tree}');
    rmSync(path.join(folder, '.git/objects', tree.slice(0, 2), tree.slice(2)));
    configure({
      'core.repositoryFormatVersion': '1',
      'extensions.partialClone': 'origin',
      'remote.origin.promisor': 'true',
      'protocol.allow': 'always',
    });
  });

  it.each([
    ['ssh', () => ({ 'remote.origin.url': 'ssh://host/x', 'core.sshCommand': trap })],
    ['a folder', () => ({ 'remote.origin.url': parent, 'remote.origin.uploadpack': trap })],
    ['a helper', () => ({ 'remote.origin.url': `ext::${trap}` })],
    ['a proxy', () => ({ 'remote.origin.url': 'git://host/x', 'core.gitProxy': trap })],
  ])('is not completed over %s', async (_, settings) => {
    configure(settings());
    const plain = (env = {}) =>
      execFileSync('git', ['log', '--name-only'], {
        cwd: folder,
        env: { ...process.env, ...env },
        stdio: 'ignore',
      });
    expect(() => plain()).toThrow();
    expect(ran()).toBe(true);
    rmSync(path.join(parent, 'ran'));
    // What a git goes by that does not know the other variable.
    expect(() => plain({ GIT_ALLOW_PROTOCOL: 'none' })).toThrow();
    expect((await lastCommitTimes(folder)).size).toBe(0);
    expect(ran()).toBe(false);
  });
});

it('runs no program that a setting names', async () => {
  const hook = path.join(parent, 'post-index-change');
  writeFileSync(hook, `#!/bin/sh\n'${trap}'\n`);
  chmodSync(hook, 0o700);
  configure({
    'log.showSignature': 'true',
    'gpg.program': trap,
    'core.fsmonitor': trap,
    'core.pager': trap,
    'pager.log': 'true',
    'alias.log': `!${trap}`,
    'core.hooksPath': parent,
    'core.alternateRefsCommand': trap,
    'core.editor': trap,
    'core.askPass': trap,
    'credential.helper': `!${trap}`,
    'diff.external': trap,
    'diff.trap.command': trap,
    'diff.trap.textconv': trap,
    'filter.trap.clean': trap,
    'filter.trap.smudge': trap,
    'filter.trap.process': trap,
    'interactive.diffFilter': trap,
    'format.pretty': '%G? %s',
  });
  writeFileSync(path.join(parent, 'included'), `[log]\n\tshowSignature = true\n`);
  configure({ 'include.path': path.join(parent, 'included') });
  git('log', '--oneline');
  expect(ran()).toBe(true);
  rmSync(path.join(parent, 'ran'));
  expect([...(await lastCommitTimes(folder)).keys()].sort()).toEqual(['.gitattributes', 'a.ts']);
  expect(ran()).toBe(false);
});

it('reads no file without an end for the order of paths or for names', async () => {
  configure({ 'diff.orderFile': '/dev/zero', 'mailmap.file': '/dev/zero' });
  expect((await lastCommitTimes(folder)).size).toBe(2);
});

it('walks a history once, until another commit is checked out', async () => {
  const first = await lastCommitTimes(folder);
  expect(first.size).toBe(2);
  const objects = path.join(folder, '.git/objects');
  renameSync(objects, path.join(parent, 'away'));
  mkdirSync(objects);
  expect(await lastCommitTimes(folder)).toEqual(first);
  rmdirSync(objects);
  renameSync(path.join(parent, 'away'), objects);
  writeFolder(folder, [['b.ts', 'y = 1\n']]);
  git('add', '.');
  git('commit', '-q', '-m', 'y');
  expect((await lastCommitTimes(folder)).has('b.ts')).toBe(true);
  git('checkout', '-q', 'HEAD~1');
  expect(await lastCommitTimes(folder)).toEqual(first);
});

it('is not looked at but where that is asked for', async () => {
  utimesSync(path.join(folder, 'a.ts'), 1000, 1000);
  const changedMs = async (gitHistory?: boolean) => {
    const { files } = await scanFolder(folder, { gitHistory });
    return files.find((file) => file.path === 'a.ts')!.changedMs;
  };
  expect(await changedMs()).toBe(1_000_000);
  expect(await changedMs(true)).toBeGreaterThan(1_700_000_000_000);
});

it('is as good as absent where there is no git', async () => {
  vi.stubEnv('PATH', parent);
  expect((await lastCommitTimes(folder)).size).toBe(0);
  vi.unstubAllEnvs();
});

it('runs no git that the folder brings along, where the search for programs begins in it', async () => {
  renameSync(trap, path.join(folder, 'git'));
  const own = process.env.PATH;
  for (const first of ['.', '', '..']) {
    vi.stubEnv('PATH', `${first}:${own}`);
    expect((await lastCommitTimes(folder)).has('a.ts')).toBe(true);
  }
  vi.unstubAllEnvs();
  expect(ran()).toBe(false);
});

it('is not asked of a Mac without the tools for developers, whose git asks for them in a window', async () => {
  const bin = path.join(parent, 'bin');
  const git = (await programOnPath('git'))!;
  mkdirSync(bin);
  symlinkSync(git, path.join(bin, 'git'));
  // There is no xcode-select here either.
  vi.stubEnv('PATH', '/usr/bin');
  expect(await gitProgram()).toBe('/usr/bin/git');
  expect(await onPlatform('darwin', gitProgram)).toBeUndefined();
  vi.stubEnv('PATH', `${bin}:/usr/bin`);
  expect(await onPlatform('darwin', gitProgram)).toBe(path.join(bin, 'git'));
  vi.unstubAllEnvs();
});

it('is not waited for when its time is over, whoever it has begun', async () => {
  const bin = path.join(parent, 'bin');
  writeFolder(bin, [['git', `#!/bin/sh\n(sleep 25; touch '${parent}/ended') & wait\n`]]);
  chmodSync(path.join(bin, 'git'), 0o700);
  vi.stubEnv('PATH', `${bin}:${process.env.PATH}`);
  expect((await lastCommitTimes(folder)).size).toBe(0);
  expect(existsSync(path.join(parent, 'ended'))).toBe(false);
  vi.unstubAllEnvs();
});

it('is found on Windows by the names and lists of that', async () => {
  writeFolder(parent, [
    ['Program Files/Git/git.exe', 'x'],
    ['git.exe', 'x'],
  ]);
  const git = path.join(parent, 'Program Files/Git/git.exe');
  for (const file of [git, path.join(parent, 'git.exe')]) chmodSync(file, 0o700);
  vi.stubEnv('PATH', `.;${path.join(parent, 'none')};"${path.dirname(git)}";${parent}`);
  expect(await onPlatform('win32', () => programOnPath('git'))).toBe(git);
  vi.unstubAllEnvs();
});

it('is read to its end, also where that takes more than one piece', async () => {
  const names = Array.from({ length: 1200 }, (_, i) => `${'long-name-'.repeat(8)}${i}.ts`);
  writeFolder(
    folder,
    names.map((name) => [name, '']),
  );
  git('add', '.');
  git('commit', '-q', '-m', 'y');
  const times = await lastCommitTimes(folder);
  expect([...times.keys()].sort()).toEqual(['.gitattributes', 'a.ts', ...names].sort());
});

it('tells a time from a file that is called like one', async () => {
  const before = (await lastCommitTimes(folder)).get('a.ts');
  writeFolder(folder, [
    ['\x01123', 'x'],
    ['b.ts', 'x'],
  ]);
  git('add', '.');
  git('commit', '-q', '-m', 'y');
  const times = await lastCommitTimes(folder);
  expect(times.get('b.ts')).toBe(Number(git('log', '-1', '--format=%ct')) * 1000);
  expect(times.get('a.ts')).toBe(before);
});
