import { execFileSync } from 'node:child_process';
import { chmodSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import { readText, scanFolder, scanWorkspace, textFault } from '../../../server/workspace/scan';
import { isSecretName, secretIn } from '../../../server/workspace/secrets';
import { writeFolder } from '../reference';

function repository(files: [string, string | Buffer][]): string {
  const folder = mkdtempSync(path.join(tmpdir(), 'longview-scan-'));
  writeFolder(folder, files);
  return folder;
}

describe('scanFolder', () => {
  it('takes the files that git would, with nested rules and negation', async () => {
    const folder = repository([
      ['.gitignore', '*.log\n/generated/\n!keep.log\n'],
      ['a.ts', 'a'],
      ['debug.log', 'x'],
      ['keep.log', 'x'],
      ['generated/g.ts', 'x'],
      ['sub/.gitignore', '*.ts\n!b.ts\n/c.py\n'],
      ['sub/a.ts', 'x'],
      ['sub/b.ts', 'x'],
      ['sub/c.py', 'x'],
      ['sub/deep/c.py', 'x'],
      ['sub/deep/generated/c.js', 'x'],
    ]);
    execFileSync('git', ['init', '-q'], { cwd: folder });
    const listed = execFileSync('git', ['ls-files', '--others', '--exclude-standard'], {
      cwd: folder,
      encoding: 'utf8',
    });
    const { files } = await scanFolder(folder);
    expect(files.map((file) => file.path).sort()).toEqual(listed.trim().split('\n').sort());
  });

  it('goes by ignore files without git too, and by .ignore', async () => {
    const folder = repository([
      ['.gitignore', '*.tmp\n'],
      ['.ignore', 'notes/\n'],
      ['a.ts', 'a'],
      ['b.tmp', 'x'],
      ['notes/n.md', 'x'],
      ['sub/.ignore', '!c.tmp\n'],
      ['sub/c.tmp', 'x'],
    ]);
    const { files, skipped } = await scanFolder(folder);
    const visible = files.map((file) => file.path).filter((name) => !/ignore$/.test(name));
    expect(visible).toEqual(['a.ts', 'sub/c.tmp']);
    expect(skipped).toEqual([
      { path: 'b.tmp', reason: 'ignored' },
      { path: 'notes/', reason: 'ignored' },
    ]);
  });

  it('takes and leaves out what the settings say', async () => {
    const folder = repository([
      ['.gitignore', 'generated/\n'],
      ['generated/g.ts', 'x'],
      ['dist/d.js', 'x'],
      ['yarn.lock', 'x'],
      ['docs/a.md', 'x'],
      ['src/a.ts', 'x'],
      ['src/private.ts', 'x'],
      ['.env', 'KEY=1'],
    ]);
    const options = { include: ['generated/', 'dist/', '*.lock', '.env'], exclude: ['docs/', 'private.ts'] };
    const { files, skipped } = await scanFolder(folder, options);
    const taken = files.map((file) => file.path).filter((name) => name !== '.gitignore');
    expect(taken).toEqual(['dist/d.js', 'generated/g.ts', 'src/a.ts', 'yarn.lock']);
    // No setting brings a secret into the prompt.
    expect(skipped).toEqual([
      { path: '.env', reason: 'secret' },
      { path: 'docs/', reason: 'excluded' },
      { path: 'src/private.ts', reason: 'excluded' },
    ]);
  });

  it('takes no settings of the editor, which change when a folder is left out, unless they are included', async () => {
    const folder = repository([
      ['.vscode/launch.json', '{}'],
      ['.vscode/settings.json', '{}'],
      ['app/.vscode/settings.json', '{}'],
      ['app/settings.json', '{}'],
    ]);
    const { files, skipped } = await scanFolder(folder);
    expect(files.map((file) => file.path)).toEqual(['.vscode/launch.json', 'app/settings.json']);
    expect(new Set(skipped.map((file) => file.reason))).toEqual(new Set(['generated']));
    const included = await scanFolder(folder, { include: ['/.vscode/'] });
    expect(included.files.map((file) => file.path)).toContain('.vscode/settings.json');
  });

  it('tells upper case from lower, as git does', async () => {
    const folder = repository([
      ['.ignore', 'logs\n'],
      ['logs/a.txt', 'x'],
      ['src/Logs/a.ts', 'x'],
    ]);
    const { files } = await scanFolder(folder, { exclude: ['SRC/'] });
    expect(files.map((file) => file.path)).toEqual(['.ignore', 'src/Logs/a.ts']);
  });

  it('goes by the rules above a folder of a repository, but for those that would hide the folder', async () => {
    const folder = repository([
      ['.gitignore', '*.log\n/src/core/gen/\nout/\n'],
      ['src/.gitignore', '*.tmp\n/core/*.txt\n'],
      ['src/core/a.ts', 'x'],
      ['src/core/a.log', 'x'],
      ['src/core/a.tmp', 'x'],
      ['src/core/a.txt', 'x'],
      ['src/core/a.local', 'x'],
      ['src/core/gen/g.ts', 'x'],
      ['src/core/.ignore', '!a.tmp\n'],
      ['out/a.js', 'x'],
    ]);
    execFileSync('git', ['init', '-q'], { cwd: folder });
    writeFileSync(path.join(folder, '.git/info/exclude'), '*.local\n');
    const names = async (below: string) =>
      (await scanFolder(path.join(folder, below))).files.map((file) => file.path);
    expect(await names('src/core')).toEqual(['.ignore', 'a.tmp', 'a.ts']);
    expect(await names('src')).toEqual(['.gitignore', 'core/.ignore', 'core/a.tmp', 'core/a.ts']);
    expect(await names('out')).toEqual(['a.js']);
  });

  it('finds the rules above a folder that is a link', async () => {
    const folder = repository([
      ['.gitignore', '*.log\n'],
      ['src/a.ts', 'x'],
      ['src/a.log', 'x'],
    ]);
    execFileSync('git', ['init', '-q'], { cwd: folder });
    const link = path.join(repository([]), 'link');
    symlinkSync(path.join(folder, 'src'), link);
    expect((await scanFolder(link)).files.map((file) => file.path)).toEqual(['a.ts']);
  });

  it('finds the rules of a worktree and of a submodule, and takes no .git of any kind', async () => {
    const folder = repository([['a.ts', 'x']]);
    const git = (...args: string[]) =>
      execFileSync('git', ['-c', 'user.name=x', '-c', 'user.email=x@x', ...args], {
        cwd: folder,
        stdio: 'ignore',
      });
    git('init');
    git('add', '.');
    git('commit', '-m', 'x');
    writeFileSync(path.join(folder, '.git/info/exclude'), '*.local\n');
    const worktree = path.join(repository([]), 'worktree');
    git('worktree', 'add', worktree);
    git('-c', 'protocol.file.allow=always', 'submodule', 'add', folder, 'sub');
    writeFileSync(path.join(folder, '.git/modules/sub/info/exclude'), '*.local\n');
    symlinkSync('a.ts', path.join(folder, 'link.ts'));
    for (const root of [worktree, path.join(folder, 'sub')]) {
      writeFileSync(path.join(root, 'b.local'), 'x');
      const { files, skipped } = await scanFolder(root, { include: ['.git'] });
      expect(files.map((file) => file.path)).toEqual(['a.ts']);
      expect(skipped.map((file) => file.path)).toEqual(['.git', 'b.local']);
    }
    const { files, skipped } = await scanFolder(folder, { include: ['.git/', '.git/**'] });
    expect(files.map((file) => file.path)).toEqual(['.gitmodules', 'a.ts', 'sub/a.ts']);
    expect(skipped).toContainEqual({ path: '.git/', reason: 'ignored' });
  });

  it.each([
    ['nothing', ''],
    ['a folder that is not there', 'gitdir: /nowhere\n'],
    ['a name that no file has', 'gitdir: a\0b\n'],
    ['a pipe', 'gitdir: .\n'],
    ['a large file', `gitdir: ${'x'.repeat(3_000_000)}`],
  ])('is not held up by a .git that leads to %s', async (_, text) => {
    const folder = repository([
      ['.git', text],
      ['src/a.ts', 'x'],
      ['info/x', 'x'],
    ]);
    for (const pipe of ['commondir', 'info/exclude']) execFileSync('mkfifo', [path.join(folder, pipe)]);
    const { files } = await scanFolder(path.join(folder, 'src'));
    expect(files.map((file) => file.path)).toEqual(['a.ts']);
  });

  it('goes by the beginning of a rule whose cost would grow with a high power of the depth, and says so', async () => {
    const deep = 'a/'.repeat(100);
    const detail = 'by the beginning of a pattern with more than 3 `**`';
    const scan = async (rules: string, options = {}) => {
      const files = ['.gitignore', `${deep}c.ts`, 'a*c.ts', 'b/c.ts', 'abc'];
      const folder = repository(files.map((name) => [name, name === '.gitignore' ? rules : 'x']));
      const { files: taken, skipped } = await scanFolder(folder, options);
      for (const file of skipped) expect(file.detail).toBe(/^#no/.test(rules) ? undefined : detail);
      return files.filter((name) => taken.every((file) => file.path !== name));
    };
    // As many steps as there are ways to choose twelve of a hundred folders.
    expect(await scan(`${'**/a/'.repeat(12)}b\n`)).toEqual([`${deep}c.ts`]);
    expect(await scan(`/b/${'**/a/'.repeat(4)}x\r\n`)).toEqual([]);
    expect(await scan(`/b/**/**/${'**/x/'.repeat(4)}x\n`)).toEqual([]);
    expect(await scan(`#no\n*.ts\n!${'**/a/'.repeat(4)}**/c.ts\n`)).toEqual([
      `${deep}c.ts`,
      'a*c.ts',
      'b/c.ts',
    ]);
    // Beside other characters of a name, two stars are one: nothing is cut off.
    expect(await scan('#no\na**b**c**d**e\n/******** abc ********/\n')).toEqual([]);
    expect(await scan('#no\na**\\**c********.ts********\n')).toEqual(['a*c.ts']);
    expect(await scan('#no\n/a****b********c********\n')).toEqual(['abc']);
  });

  it('keeps to a rule that costs no more than it may', async () => {
    const deep = 'a/'.repeat(100);
    const scan = async (rules: string) => {
      const { files } = await scanFolder(
        repository([
          ['.gitignore', rules],
          [`${deep}c.ts`, 'x'],
        ]),
      );
      return files.map((file) => file.path);
    };
    const both = ['.gitignore', `${deep}c.ts`];
    expect(await scan('**/a/**/a/**/c.ts\r\n')).toEqual(['.gitignore']);
    expect(await scan(`${'**/'.repeat(30)}c.ts\n`)).toEqual(['.gitignore']);
    expect(await scan('/a**/**/c.ts\n')).toEqual(['.gitignore']);
    expect(await scan(`${'# long\n'.repeat(200_000)}*.ts`)).toEqual(both.slice(1));
  });

  it('goes no deeper than where such rules cost too much', async () => {
    const folder = repository([
      ['.gitignore', '**/a/**/a/**/a/b\n'],
      [`${'a/'.repeat(800)}c.ts`, 'x'],
      [`${'b/'.repeat(120)}c.ts`, 'x'],
    ]);
    const { files, skipped } = await scanFolder(folder);
    expect(files.map((file) => file.path)).toEqual(['.gitignore', `${'b/'.repeat(120)}c.ts`]);
    expect(skipped).toEqual([
      { path: 'a/'.repeat(129), reason: 'unreadable', detail: 'more than 128 folders deep' },
    ]);
  });

  it('says which pattern of the settings would cost as much', async () => {
    const folder = repository([[`${'a/'.repeat(60)}c.ts`, 'x']]);
    for (const key of ['include', 'exclude']) {
      await expect(scanFolder(folder, { [key]: [`${'**/a/'.repeat(20)}b`] })).rejects.toThrow(
        /\*\*\/a.*in longview\.files has more than 3/,
      );
      expect((await scanFolder(folder, { [key]: [`${'**/'.repeat(20)}b`] })).files).toHaveLength(1);
    }
  });

  it('takes what the settings include inside of a folder that is left out, and that alone', async () => {
    const folder = repository([
      ['.gitignore', 'generated/\n'],
      ['a.ts', 'x'],
      ['vendor/mine/a.ts', 'x'],
      ['vendor/mine/deep/b.ts', 'x'],
      ['vendor/other/c.ts', 'x'],
      ['vendor/d.ts', 'x'],
      ['generated/api/e.ts', 'x'],
      ['generated/f.ts', 'x'],
      ['node_modules/m/index.ts', 'x'],
      ['node_modules/m/README.md', 'x'],
    ]);
    const { files, skipped } = await scanFolder(folder, {
      include: ['vendor/mine/**', '/generated/api/*.ts', '*.md'],
    });
    expect(files.map((file) => file.path)).toEqual([
      '.gitignore',
      'a.ts',
      'generated/api/e.ts',
      'vendor/mine/a.ts',
      'vendor/mine/deep/b.ts',
    ]);
    expect(skipped.map(({ path, reason }) => [path, reason])).toEqual([
      ['generated/', 'ignored'],
      ['node_modules/', 'dependency'],
      ['vendor/', 'dependency'],
    ]);
    const both = [
      { name: 'app', folder },
      { name: 'lib', folder: repository([['vendor/g.ts', 'x']]) },
    ];
    const there = await scanWorkspace(both, { include: ['app/vendor/mine/deep/b.ts'] });
    const vendored = there.files.map((file) => file.path).filter((name) => name.includes('vendor'));
    expect(vendored).toEqual(['app/vendor/mine/deep/b.ts']);
  });

  it('lists a folder that it may not enter', async ({ skip }) => {
    if (process.getuid?.() === 0) skip('root may enter every folder');
    const folder = repository([['shut/a.ts', 'x']]);
    chmodSync(path.join(folder, 'shut'), 0);
    const { skipped } = await scanFolder(folder);
    chmodSync(path.join(folder, 'shut'), 0o700);
    expect(skipped).toEqual([{ path: 'shut/', reason: 'unreadable' }]);
  });

  it('lists what it leaves out, with the reason, and never opens a pipe', async () => {
    const folder = repository([
      ['a.ts', 'a'],
      ['.env', 'KEY=1'],
      ['.env.example', 'KEY='],
      ['id_rsa', 'x'],
      ['yarn.lock', 'x'],
      ['lib.min.js', 'x'],
      ['big.txt', 'x'.repeat(3000)],
      ['node_modules/m/index.js', 'x'],
      ['ev"il.ts', 'x'],
    ]);
    symlinkSync('..', path.join(folder, 'loop'));
    execFileSync('mkfifo', [path.join(folder, 'pipe')]);
    const { files, skipped } = await scanFolder(folder, { maxFileBytes: 2048 });
    expect(files.map((file) => file.path)).toEqual(['.env.example', 'a.ts']);
    expect(Object.fromEntries(skipped.map((file) => [file.path, file.reason]))).toEqual({
      '.env': 'secret',
      id_rsa: 'secret',
      'yarn.lock': 'lock-file',
      'lib.min.js': 'minified',
      'big.txt': 'too-large',
      'node_modules/': 'dependency',
      'ev"il.ts': 'excluded',
      loop: 'link-loop',
      pipe: 'not-a-file',
    });
  });

  it('knows files of secrets by their names', () => {
    const secret =
      '.env .ENV.local .envrc prod.env .git-credentials .pgpass .netrc .npmrc .pypirc .htpasswd me.ppk a.pem a.key a.p12 a.pfx ' +
      'a.jks a.keystore id_ed25519_sk ID_RSA id_dsa id_ecdsa credentials credentials.json';
    for (const name of secret.split(' ')) expect(isSecretName(name), name).toBe(true);
    const harmless =
      '.env.example .env.sample .env.template example.env sample.env template.env environment.ts id_token.ts keys.ts ' +
      'credentials.ts id_rsa.pub a.pem.ts';
    for (const name of harmless.split(' ')) expect(isSecretName(name), name).toBe(false);
  });

  it('fails where the folder itself cannot be read', async () => {
    const gone = path.join(repository([]), 'gone');
    await expect(scanFolder(gone)).rejects.toMatchObject({ code: 'no_workspace' });
    await expect(scanWorkspace([])).rejects.toMatchObject({ code: 'no_workspace' });
  });

  it('stops when it is told to', async () => {
    await expect(scanFolder(repository([['a', 'a']]), { signal: AbortSignal.abort() })).rejects.toMatchObject(
      { code: 'cancelled' },
    );
  });
});

describe('readText', () => {
  const read = (content: string | Buffer) => {
    const folder = repository([['file.js', content]]);
    return readText({ path: 'file.js', absolutePath: path.join(folder, 'file.js') });
  };

  it('gives lines that end in line feeds, as many as the editor counts', async () => {
    expect(await read('one\r\ntwo\rthree\nfour')).toEqual({ text: 'one\ntwo\nthree\nfour' });
    expect(await read('\ufeffone\n')).toEqual({ text: 'one\n' });
  });

  it('says why a file has no text', async () => {
    expect(await read(Buffer.from([0x61, 0xff, 0xfe]))).toEqual({ reason: 'invalid-utf8' });
    expect(await read(Buffer.from('MZ\0\x01 and more'))).toEqual({ reason: 'binary' });
    expect(await read(' \n\n')).toEqual({ reason: 'empty' });
    expect(await read(`var a=1;${'f(1,2,3);'.repeat(3000)}`)).toEqual({ reason: 'minified' });
    const gone = path.join(repository([]), 'gone.ts');
    expect(await readText({ path: 'gone.ts', absolutePath: gone })).toEqual({ reason: 'unreadable' });
  });

  it('leaves out what would keep a tokenizer busy for minutes', () => {
    const detail = 'one unbroken run of 20,000 characters';
    for (const run of ['A', '=', '7']) {
      expect(textFault('a.txt', `${run.repeat(20_000)}\n`)).toEqual({ reason: 'generated', detail });
      expect(textFault('a.txt', `${run.repeat(9_999)}\n`.repeat(9))).toBeUndefined();
    }
    expect(textFault('a.txt', `x${' '.repeat(20_000)}x`)).toEqual({ reason: 'generated', detail });
  });

  it('sees runs as tokenizers do, and what many of them take together', () => {
    const generated = { reason: 'generated', detail: expect.stringContaining('unbroken run') as string };
    // A mark, U+FEFF and the control NEL do not end a run of signs or of white space in their patterns.
    for (const [run, between] of [
      ['=', '\u0301'],
      ['=', '\ufeff'],
      [' ', '\u0085'],
    ] as const)
      expect(textFault('a.txt', `x${`${run.repeat(15_000)}${between}`.repeat(2)}x`)).toEqual(generated);
    expect(textFault('a.txt', `${'a'.repeat(16_000)}1`.repeat(60))).toEqual(generated);
    expect(textFault('a.txt', '中'.repeat(16_000))).toEqual(generated);
    expect(textFault('a.txt', `${'中'.repeat(200)}。\n`.repeat(1500))).toBeUndefined();
    expect(textFault('a.txt', `${'-'.repeat(80)} ${'word '.repeat(20)}\n`.repeat(5000))).toBeUndefined();
  });

  it('does not follow a link that took the place of a file, nor wait for a pipe', async () => {
    const folder = repository([['real.ts', 'x']]);
    symlinkSync('real.ts', path.join(folder, 'link.ts'));
    execFileSync('mkfifo', [path.join(folder, 'pipe.ts')]);
    const from = (name: string) => readText({ path: name, absolutePath: path.join(folder, name) });
    expect(await from('link.ts')).toEqual({ reason: 'unreadable' });
    expect(await from('pipe.ts')).toHaveProperty('reason');
  });

  it('keeps files with keys and tokens out, and no others', async () => {
    // Put together here, so that this file holds none itself.
    const marker = (kind: string, end = '') => `-----BEGIN ${kind}PRIVATE KEY${end}-----`;
    const line = 'MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEAAoIBAQ';
    for (const [text, what] of [
      [`const key = \`${marker('RSA ')}\n${line}`, 'a private key'],
      [`{"private_key": "${marker('')}\\n${line}\\n`, 'a private key'],
      [`"${marker('EC ')}\\n" +\n  "${line}\\n" +`, 'a private key'],
      [`${marker('RSA ')}\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES\n\n${line}`, 'a private key'],
      [`${marker('PGP ', ' BLOCK')}\nVersion: 2\n\n${line}`, 'a private key'],
      [`AKIAIOSFODNN7EXAMPLE, ${'AKIA'}${'IOSFODNN7QWERTYU'}`, 'an AWS access key'],
      [`${'hf'}_${'aB'.repeat(17)}`, 'a Hugging Face token'],
      [`id: ${'AKIA'}${'IOSFODNN7QWERTYU'}`, 'an AWS access key'],
      [`id: ${'ASIA'}${'IOSFODNN7QWERTYU'}`, 'an AWS access key'],
      [`token = "${'ghp'}_${'a1B2'.repeat(9)}"`, 'a GitHub token'],
      [`token = "${'github'}_pat_${'a1B2_'.repeat(16)}a1"`, 'a GitHub token'],
      [`slack: ${'xoxb'}-123456789012-${'abcDEF'.repeat(4)}`, 'a Slack token'],
      [`${'sk'}_live_${'x9Y8'.repeat(6)}`, 'a Stripe key'],
      [`${'glpat'}-${'a1B2'.repeat(5)}`, 'a GitLab token'],
      [`key: ${'AIza'}${'Sy1_a'.repeat(7)}`, 'a Google API key'],
      [`//npm.example/:_authToken=${'npm'}_${'a1B2'.repeat(9)}`, 'an npm token'],
      [`${'sk'}-ant-api03-${'a1_B'.repeat(8)}`, 'an API key of a model provider'],
      [`${'sk'}-proj-${'a1_B'.repeat(8)}`, 'an API key of a model provider'],
    ])
      expect(await read(text!)).toEqual({ reason: 'secret', detail: `it holds ${what}` });
    for (const text of [
      'AKIAIOSFODNN7EXAMPLE of the documentation',
      'sha1 da39a3ee5e6b4b0d3255bfef95601890afd80709',
      'def ghp_token_from_env(): ...',
      'sk-learn-ant',
      `if (text.startsWith('${marker('')}\\n')) return 'PKCS8';`,
      `const markers = ['${marker('RSA ')}', '${marker('')}', '${marker('PGP ', ' BLOCK')}'];`,
      `${marker('')}\n...\n-----END PRIVATE KEY-----`,
      `${marker('')}${' '.repeat(9000)}${'a: b\n'.repeat(3000)}`,
    ])
      expect(await read(text)).toEqual({ text });
  });

  it('looks for keys in a time that does not grow faster than the text', () => {
    const marker = '-----BEGIN PRIVATE KEY-----';
    // Steps that double with each header, or that grow with the square of the text: minutes.
    for (const text of [
      marker + '\\na: b\\n'.repeat(100),
      `${marker}a: `.repeat(30_000),
      `${`${marker}a: `.repeat(7)}\n`.repeat(4_000),
      marker + 'a-'.repeat(400_000),
    ])
      expect(secretIn(text)).toBeUndefined();
  });
});

describe('scanWorkspace', () => {
  it('puts the names of several folders before their paths, made unique', async () => {
    const one = repository([['a.ts', 'a']]);
    const two = repository([['a.ts', 'b']]);
    const { files } = await scanWorkspace([
      { name: 'app', folder: one },
      { name: 'app', folder: two },
    ]);
    expect(files.map((file) => file.path)).toEqual(['app/a.ts', 'app-2/a.ts']);
    const odd = await scanWorkspace([
      { name: 'a"b', folder: one },
      { name: 'a"b', folder: two },
    ]);
    expect(odd.files.map((file) => file.path)).toEqual(['a_b/a.ts', 'a_b-2/a.ts']);
  });

  it('leaves out by the path in the prompt as well as by the path in its folder', async () => {
    const one = repository([
      ['src/a.ts', 'a'],
      ['gen/g.ts', 'a'],
    ]);
    const two = repository([
      ['src/b.ts', 'b'],
      ['gen/g.ts', 'b'],
    ]);
    const roots = [
      { name: 'app', folder: one },
      { name: 'lib', folder: two },
    ];
    const { files, skipped } = await scanWorkspace(roots, { exclude: ['/app/src/', '/gen/'] });
    expect(files.map((file) => file.path)).toEqual(['lib/src/b.ts']);
    expect(skipped.map((file) => file.path)).toEqual(['app/gen/', 'app/src/', 'lib/gen/']);
  });

  it('says so when no folder is open', async () => {
    await expect(scanWorkspace([])).rejects.toMatchObject({ code: 'no_workspace' });
  });

  it("knows from git's history when a file changed, whatever its time on disk", async () => {
    const folder = repository([
      ['old file é.ts', 'a'],
      ['sub/new.ts', 'b'],
      ['untracked.ts', 'c'],
    ]);
    const git = (date: string, ...args: string[]) =>
      execFileSync('git', ['-c', 'user.name=x', '-c', 'user.email=x@x', ...args], {
        cwd: folder,
        env: { ...process.env, GIT_COMMITTER_DATE: date, GIT_AUTHOR_DATE: date },
        stdio: 'ignore',
      });
    const early = '2020-01-01T00:00:00Z';
    const late = '2021-01-01T00:00:00Z';
    git(early, 'init');
    git(early, 'add', 'old file é.ts');
    git(early, 'commit', '-m', 'x');
    git(late, 'add', 'sub');
    git(late, 'commit', '-m', 'y');
    const { files } = await scanFolder(folder, { gitHistory: true });
    const changed = new Map(files.map((file) => [file.path, file.changedMs]));
    expect(changed.get('old file é.ts')).toBe(Date.parse(early));
    expect(changed.get('sub/new.ts')).toBe(Date.parse(late));
    expect(changed.get('untracked.ts')).toBe(files.find((file) => file.path === 'untracked.ts')?.mtimeMs);
  });

  it('walks 100,000 files while other work goes on, and stops when it is told to', async () => {
    const folder = mkdtempSync(path.join(tmpdir(), 'longview-large-'));
    for (let i = 0; i < 100; i++) {
      mkdirSync(path.join(folder, `d${i}`));
      for (let j = 0; j < 1000; j++) writeFileSync(path.join(folder, `d${i}`, `f${j}.ts`), 'x');
    }
    const heap = process.memoryUsage().heapUsed;
    let longest = 0;
    let last = performance.now();
    const beat = setInterval(() => {
      longest = Math.max(longest, performance.now() - last);
      last = performance.now();
    }, 5);
    const start = performance.now();
    const { files } = await scanFolder(folder);
    const seconds = (performance.now() - start) / 1000;
    clearInterval(beat);
    console.log(`100,000 files in ${seconds.toFixed(1)} s, longest pause ${longest.toFixed(0)} ms`);
    expect(files.length).toBe(100_000);
    // Half a kilobyte a file, and what the collector has not taken yet; contents are not kept.
    expect(process.memoryUsage().heapUsed - heap).toBeLessThan(200 * 2 ** 20);
    // A blocking walk would let no beat through at all.
    expect(longest).toBeLessThan(seconds * 500);

    const stop = new AbortController();
    setTimeout(() => stop.abort(), 20);
    await expect(scanFolder(folder, { signal: stop.signal })).rejects.toMatchObject({ code: 'cancelled' });
    rmSync(folder, { recursive: true });
  }, 300_000);
});
