/** Bad input gets a sentence that a user can act on. */
import { spawn, spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import { savedWorkspaces } from '../../../server/cache/storage';
import type { ContextResult } from '../../../server/protocol';
import { visible, visibleLines } from '../../../server/terminal';
import { builtInModel, root, writeFolder } from '../reference';

const folder = mkdtempSync(path.join(tmpdir(), 'longview-cli-'));

const ask = (...args: string[]) => run('ask', ...args);

function run(...args: string[]): { status: number | null; stdout: string; stderr: string } {
  return spawnSync(process.execPath, [path.join(root, 'dist/cli.js'), ...args], {
    cwd: folder,
    env: { ...process.env, INIT_CWD: folder },
    encoding: 'utf8',
  });
}

function file(name: string, bytes: Buffer | string): string {
  writeFileSync(path.join(folder, name), bytes);
  return path.join(folder, name);
}

describe('longview ask', () => {
  const model = readFileSync(builtInModel);

  it.each([
    ['a missing model', () => path.join(folder, 'none.gguf'), /no model at/],
    ['an empty model file', () => file('empty.gguf', ''), /empty/],
    ['a foreign file', () => file('foreign.gguf', 'GIF89a and more of it'), /model|GGUF/i],
    [
      'a model cut inside its header',
      () => file('cut.gguf', model.subarray(0, 5000)),
      /cut off|ends inside|damaged/,
    ],
    [
      'a model cut inside its weights',
      () => file('half.gguf', model.subarray(0, 40_000_000)),
      /cut off|Download/,
    ],
    [
      'a model of another architecture',
      () => {
        const copy = Buffer.from(model);
        const key = 'general.architecture';
        copy.write('mamba', copy.indexOf('llama', copy.indexOf(key) + key.length));
        return file('mamba.gguf', copy);
      },
      /mamba/,
    ],
  ])('says what is wrong with %s', (_what, make, sentence) => {
    const { status, stderr, stdout } = ask('--model', make(), 'Where is x defined?');
    expect(stderr).toMatch(sentence);
    expect(stderr).not.toMatch(/\n\s+at /);
    expect(stdout).toBe('');
    expect(status).toBe(1);
  });

  it('says so when there is nothing to read', () => {
    const empty = path.join(folder, 'nothing');
    mkdirSync(empty, { recursive: true });
    const { status, stderr } = ask('--repo', empty, 'Where is x defined?');
    expect(stderr).toMatch(/There is nothing to read in the folder nothing: it is empty\./);
    expect(status).toBe(1);
  });

  it('says so when the folder does not exist', () => {
    const nowhere = path.join(folder, 'nowhere');
    // Beside one that does, too.
    for (const more of [[], ['--repo', folder]]) {
      const { status, stderr } = ask(...more, '--repo', nowhere, 'x?');
      expect(stderr).toBe(`There is no folder ${nowhere}: it may have been moved or deleted.\n`);
      expect(status).toBe(1);
    }
    const noFolder = file('no-folder', '');
    expect(ask('--repo', noFolder, 'x?')).toMatchObject({ stderr: `${noFolder} is no folder.\n`, status: 1 });
  });

  it('shows its usage without a question', () => {
    const { status, stderr } = ask();
    expect(stderr).toMatch(/question is missing[^]*Usage/);
    expect(status).toBe(2);
  });

  it('answers with JSON: answer, citations, sources, stats', () => {
    const repo = path.join(folder, 'repo');
    writeFolder(repo, [
      [
        'app/config.py',
        'import os\n\n\nRETRY_LIMIT = 17\n\n\ndef load_config(path):\n    """Read the settings file."""\n    return open(path).read()\n',
      ],
    ]);
    const { status, stdout, stderr } = ask('--repo', repo, '--json', 'Where is `load_config` defined?');
    expect(stderr).toMatch(/1 of 1 files · .+, loaded in \d+\.\d s · /);
    expect(stderr).not.toContain('tokens/s).');
    expect(status).toBe(0);
    const { answer, citations, sources, stats } = JSON.parse(stdout) as {
      answer: string;
      citations: { path: string; span?: { startLine: number } }[];
      sources: unknown;
      stats: Record<string, unknown>;
    };
    expect(answer).toContain('app/config.py');
    expect(citations[0]).toMatchObject({ path: 'app/config.py', span: { startLine: 7 } });
    expect(sources).toMatchObject([{ path: 'app/config.py', share: 1, span: { startLine: 7, endLine: 7 } }]);
    expect(stats).toMatchObject({ files: 1, skipped: 0, reusedTokens: 0 });
    const plain = ask('--repo', repo, 'Where is `load_config` defined?');
    expect(plain.stderr).toContain('\nLooked at most: app/config.py:L7 (100 %)\n');
    expect(plain.stderr).toMatch(
      /\nRead [\d,]+ tokens in [\d.]+ s \([\d,]+ tokens\/s\)\. Answered with [\d,]+ tokens\/s, first word after [\d.]+ s\.\n/,
    );
    expect(plain.stdout).not.toContain('Looked');
  });
});

describe('an answer in the terminal', () => {
  const repo = path.join(folder, 'terminal');
  const code = Array.from({ length: 12 }, (_, i) => `    total += rates[${i}]\n`).join('');
  writeFolder(repo, [
    ['rates.py', `def sum_rates(rates):\n    """Add the rates."""\n    total = 0\n${code}    return total\n`],
  ]);
  const question = 'Show me the code of `sum_rates`.';

  it('is said to be cut where it is', () => {
    const { status, stdout, stderr } = ask('--repo', repo, '--max-tokens', '3', question);
    expect(stderr).toMatch(/\nThe answer was cut at its longest length, 3 tokens \(--max-tokens\)\.\nRead /);
    expect({ status, end: stdout.at(-1) }).toEqual({ status: 0, end: '\n' });
    const cut = ask('--repo', repo, '--max-tokens', '3', '--json', question);
    expect(JSON.parse(cut.stdout)).toMatchObject({ finish: 'length' });
    const whole = ask('--repo', repo, 'Where is `sum_rates` defined?');
    expect(whole.stderr).not.toContain('cut');
    expect(whole.stdout).toMatch(/\n {2}rates\.py:1\n$/);
  });

  it('ends its line when it is stopped', async () => {
    const asking = spawn(
      process.execPath,
      [path.join(root, 'dist/cli.js'), 'ask', '--repo', repo, question],
      {
        env: { ...process.env, INIT_CWD: folder },
        stdio: ['ignore', 'pipe', 'pipe'],
      },
    );
    let stdout = '';
    let stderr = '';
    asking.stderr.setEncoding('utf8').on('data', (text: string) => (stderr += text));
    asking.stdout.setEncoding('utf8').on('data', (text: string) => {
      if (stdout === '') asking.kill('SIGINT');
      stdout += text;
    });
    expect(await new Promise((done) => asking.once('close', done))).toBe(1);
    expect(stderr).toMatch(/\nStopped\.\n$/);
    expect(stdout).toMatch(/[^\n]\n$/);
  });
});

describe('longview in a pipe, and stopped', () => {
  const repo = path.join(folder, 'piped');
  const saved = path.join(folder, 'saved');
  const question = 'Where is `load_config` defined?';
  const env = { ...process.env, INIT_CWD: folder, LONGVIEW_CACHE_DIR: 'saved' };
  const shell = (command: string) =>
    spawnSync('bash', ['-c', command], {
      env: { ...env, CLI: `${process.execPath} ${path.join(root, 'dist/cli.js')}` },
      encoding: 'utf8',
    });
  writeFolder(repo, [['config.py', `def load_config(path):\n    return 1\n${'LIMIT = 17\n'.repeat(200)}`]]);

  it('stops when nobody reads the answer, and saves what was read', () => {
    const { stdout, stderr } = shell(
      `$CLI ask --repo piped '${question}' | head -c 1 > /dev/null; echo \${PIPESTATUS[0]}`,
    );
    expect(stderr).toMatch(/\nStopped\.\n$/);
    expect(stderr).not.toMatch(/\n\s+at /);
    expect(stdout).toBe('1\n');
    // Beside the folder that the command was called from, as --repo.
    expect(existsSync(saved)).toBe(true);
    const again = shell('$CLI prefill --repo piped --json');
    const { tokens, reusedTokens } = JSON.parse(again.stdout) as { tokens: number; reusedTokens: number };
    expect(tokens).toBeGreaterThan(500);
    expect(reusedTokens).toBe(tokens);
    // Loading is told by pages, and as a whole: nothing is said twice.
    const told = again.stderr.split('\n').filter((line) => /^Reading ([\d,]+) of \1 tokens/.test(line));
    expect(told).toHaveLength(1);
  });

  it.each([
    ['SIGINT', 'linux'],
    ['SIGTERM', 'linux'],
    ['SIGHUP', 'win32'],
  ] as const)(
    'saves what was read when it is stopped by %s on %s',
    async (signal, platform) => {
      const system = file(
        'system.cjs',
        `Object.defineProperty(process, 'platform', { value: '${platform}' });`,
      );
      writeFolder(path.join(folder, 'long'), [
        ['pack.ts', readFileSync(path.join(root, 'server/prompt/pack.ts'), 'utf8')],
      ]);
      const place = path.join(folder, `stopped-${signal}`);
      const cli = ['--require', system, path.join(root, 'dist/cli.js')];
      const reading = spawn(process.execPath, [...cli, 'prefill', '--repo', 'long'], {
        env: { ...env, LONGVIEW_CACHE_DIR: place },
        stdio: ['ignore', 'ignore', 'pipe'],
      });
      let said = '';
      reading.stderr.setEncoding('utf8').on('data', (text: string) => {
        said += text;
        if (/Reading [1-9]/.test(text)) reading.kill(signal);
      });
      expect(await new Promise((done) => reading.once('close', done))).toBe(1);
      expect(said).toMatch(/\nStopped\.\n$/);
      const [state] = await savedWorkspaces(place);
      expect(state?.bytes).toBeGreaterThan(1 << 20);
    },
    60_000,
  );

  it('answers when nobody reads the progress', () => {
    const { stdout } = shell(
      `$CLI ask --repo piped '${question}' 2> >(exec <&-); echo $?; $CLI context --repo piped 2>&1 | true; echo \${PIPESTATUS[0]}`,
    );
    expect(stdout).toMatch(/config\.py[^]*\n0\n1\n$/);
  });
});

it('says why the engine could not be loaded, and for which system it is needed', () => {
  const wrong = file('longview.node', 'of another system');
  const context = (addon: string) =>
    spawnSync(process.execPath, [path.join(root, 'dist/cli.js'), 'context', '--repo', folder], {
      env: { ...process.env, LONGVIEW_ADDON: addon },
      encoding: 'utf8',
    }).stderr;
  const system = `Install Longview for ${process.platform}-${process.arch}, or build it`;
  expect(context(wrong)).toMatch(new RegExp(`could not be loaded: .*(header|too short).*\\. ${system}`));
  expect(context(`${wrong}.none`)).toContain(`could not be loaded: there is no ${wrong}.none. ${system}`);
});

it('stops at once while it loads a model', () => {
  // The engine itself, and someone who presses Ctrl-C as soon as it begins.
  const pressing = file(
    'pressing.cjs',
    `const addon = require(${JSON.stringify(path.join(root, 'dist/longview.node'))});
     class Engine extends addon.Engine {
       open(...all) {
         const opened = super.open(...all);
         process.emit('SIGINT');
         return opened;
       }
     }
     module.exports = { ...addon, Engine };`,
  );
  const home = path.join(folder, 'home');
  const env = { ...process.env, INIT_CWD: folder, LONGVIEW_ADDON: pressing, XDG_DATA_HOME: home };
  const choose = spawnSync(
    process.execPath,
    [path.join(root, 'dist/cli.js'), 'models', 'use', builtInModel],
    {
      env,
      encoding: 'utf8',
    },
  );
  expect(choose).toMatchObject({ status: 1, stdout: '' });
  // A busy machine takes longer than the second after which loading is told of.
  expect(choose.stderr.replace(/^Loading .*\n/gm, '')).toBe('Stopped.\n');
  expect(existsSync(home)).toBe(false);
});

it('finds the model of LONGVIEW_MODEL beside the folder that it was called from, as --model', () => {
  const { status, stderr } = spawnSync(process.execPath, [path.join(root, 'dist/cli.js'), 'context'], {
    cwd: root,
    env: { ...process.env, INIT_CWD: folder, LONGVIEW_MODEL: 'none.gguf' },
    encoding: 'utf8',
  });
  expect(stderr).toContain(`no model at ${path.join(folder, 'none.gguf')}`);
  expect(status).toBe(1);
});

it('lists models where LONGVIEW_MODEL names none, and says that it goes before one that is chosen', () => {
  const models = (...args: string[]) =>
    spawnSync(process.execPath, [path.join(root, 'dist/cli.js'), 'models', ...args], {
      env: {
        ...process.env,
        INIT_CWD: folder,
        LONGVIEW_MODEL: 'none.gguf',
        XDG_DATA_HOME: path.join(folder, 'choices'),
      },
      encoding: 'utf8',
    });
  rmSync(path.join(folder, 'none.gguf'), { force: true });
  const list = models();
  expect(list).toMatchObject({
    status: 0,
    stderr: expect.stringMatching(/^There is no model at /) as string,
  });
  expect(list.stdout).toMatch(/^ {2}longview-135m-64k/);
  const use = models('use', builtInModel, '--json');
  expect(use.status).toBe(0);
  expect(JSON.parse(use.stdout)).toEqual({ path: builtInModel });
  expect(use.stderr).toMatch(
    /\nLONGVIEW_MODEL names another model: as long as it does, that one is used\.\n$/,
  );
});

it('shows control characters in names of files instead of sending them to the terminal', () => {
  const repo = path.join(folder, 'steering');
  // Renames the window, fills the clipboard, pretends to be another line, and turns the direction of text around.
  const names = ['a\x1b]0;b\x07.py', 'b\x9b2J.py', 'c\n       1  d.py', 'e\u202eyp.py'];
  writeFolder(
    repo,
    [...names, 'f.py'].map((name) => [name, 'LIMIT = 1\n']),
  );
  const { stdout } = run('context', '--repo', repo);
  expect(stdout).not.toMatch(/(?!\n)\p{Cc}|\u202e/u);
  for (const name of ['a\\u001b]0;b\\u0007.py', 'b\\u009b2J.py', 'c\\u000a       1  d.py', 'e\\u202eyp.py'])
    expect(stdout).toContain(`  ${name}`);
  const { files, skipped } = JSON.parse(run('context', '--repo', repo, '--json').stdout) as ContextResult;
  expect([...files, ...skipped].map((file) => file.path).sort()).toEqual([...names, 'f.py']);
});

it('shows those in an answer too, and keeps its lines', () => {
  expect(visibleLines('a\tb\n\x1b[2Jc\r\x7f')).toBe('a\tb\n\\u001b[2Jc\\u000d\\u007f');
  expect(visible('a\tb\né 🦀')).toBe('a\\u0009b\\u000aé 🦀');
});

it('reads a folder once, however often and in whatever way it is named', () => {
  const repo = path.join(folder, 'twice');
  writeFolder(repo, [['a.py', 'LIMIT = 1\n']]);
  const repeated = ['--repo', repo, '--repo', 'twice', '--repo', `${repo}/`];
  const { files } = JSON.parse(run('context', ...repeated, '--json').stdout) as ContextResult;
  expect(files.map((file) => file.path)).toEqual(['a.py']);
  // Also where one lies in another, which is said.
  const inner = path.join(repo, 'inner');
  writeFolder(inner, [['b.py', 'LIMIT = 2\n']]);
  const { stdout } = run('context', '--repo', repo, '--repo', inner);
  expect(stdout).toMatch(/\d {2}twice\/a\.py\n/);
  expect(stdout.match(/\d {2}.*b\.py\n/g)).toEqual([expect.stringMatching(/ inner\/b\.py\n$/)]);
  expect(stdout).toContain('\n  twice/inner/  read-elsewhere (as inner/)\n');
});

it('reads files in the encoding that it is told, and refuses one that it does not know', () => {
  const repo = path.join(folder, 'encoded');
  writeFolder(repo, [['a.c', Buffer.from('// \xf0\xe0\xe7\xec\xe5\xf0\nint size;\n', 'latin1')]]);
  const paths = (...args: string[]) => {
    const { stdout, stderr } = run('context', '--repo', repo, '--json', ...args);
    return stdout ? (JSON.parse(stdout) as ContextResult).files.map((file) => file.path) : stderr;
  };
  expect(paths()).toMatch(/nothing to read in the folder encoded: .*\(1 invalid utf8\)/);
  expect(paths('--encoding', 'windows-1251')).toEqual(['a.c']);
  expect(paths('--encoding', 'cp850')).toMatch(/--encoding must be one that can be read.* cp850 is none/);
});

describe('longview with what it does not take', () => {
  it.each([
    // One is the other's name elsewhere.
    ['ask', '--target', 'fast', 'Where is x defined?'],
    ['calibrate', '--prefill-target', 'fast'],
    ['prefill', '--text', 'x.txt'],
    ['models', '--repo', '.'],
    ['cache', '--model', 'x.gguf'],
  ])('refuses an option that would change nothing: %s %s', (command, option, ...more) => {
    const { status, stderr, stdout } = run(command, option, ...more);
    expect(stderr).toMatch(`${command} takes no ${option}.\nUsage:`);
    expect({ status, stdout }).toEqual({ status: 2, stdout: '' });
  });

  it.each([
    ['--max-tokens', '0', /--max-tokens needs a whole number from 1 to /],
    ['--max-tokens', '1.5', /--max-tokens needs a whole number from 1 to /],
    ['--threads', '1025', /--threads needs a whole number from 0 to 1024\./],
    ['--encoding', 'cp850', /cp850 is none/],
  ])('says so before it opens a model: %s %s', (option, value, sentence) => {
    const { status, stderr } = ask('--model', file('none.gguf', 'no model'), option, value, 'Where is x?');
    expect(stderr).toMatch(sentence);
    expect(status).toBe(2);
  });

  it.each(['repo', 'model', 'exclude'])('refuses an option that is given nothing: --%s', (option) => {
    for (const args of [[`--${option}`, ''], [`--${option}=`]]) {
      const { status, stdout, stderr } = run('context', ...args);
      expect(stderr).toMatch(`--${option} is empty.\nUsage:`);
      expect({ status, stdout }).toEqual({ status: 2, stdout: '' });
    }
  });

  it('names a folder that is not there before it opens a model', () => {
    for (const command of ['ask', 'calibrate'] as const) {
      const { stderr } = run(
        command,
        '--model',
        file('none.gguf', ''),
        '--repo',
        'gone',
        ...(command === 'ask' ? ['x?'] : []),
      );
      expect(stderr).toMatch(/^There is no folder .*gone: it may have been moved or deleted\.\n$/);
    }
  });

  it.each(['prefill', 'context', 'calibrate'])('shows its usage: %s', (command) => {
    const { status, stderr, stdout } = run(command, 'server');
    expect(stderr).toMatch(/'server'[^]*Usage/);
    expect({ status, stdout }).toEqual({ status: 2, stdout: '' });
  });
});

describe('longview --help', () => {
  it('shows its usage, on any command, and is no failure', () => {
    for (const args of [['help'], ['--help'], ['-h'], ['ask', '--help'], ['models', 'list', '--help']]) {
      const { status, stdout, stderr } = run(...args);
      expect(stdout).toMatch(/^Usage/);
      expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
    }
  });
});

describe('longview calibrate', () => {
  it('shows its usage for what it cannot take', () => {
    for (const wrong of [
      ['--target', 'exact'],
      ['--density', '0'],
      ['--density', '1001'],
      ['--tokens', 'many'],
    ])
      expect(run('calibrate', ...wrong)).toMatchObject({
        status: 2,
        stderr: expect.stringContaining('Usage') as string,
      });
  });

  it('says what it cannot calibrate on', () => {
    const little = file('little.py', 'LIMIT = 1\n');
    expect(run('calibrate', '--text', little)).toMatchObject({
      status: 1,
      stderr: expect.stringMatching(/at least 4096 are needed/) as string,
    });
    const missing = run('calibrate', '--text', path.join(folder, 'none.txt'));
    expect(missing.stderr).toMatch(/none\.txt could not be read/);
    expect(missing.status).toBe(1);
  });

  it('leaves a profile that a reading takes, and refuses one that is not of the model', () => {
    const text = Array.from({ length: 150 }, (_, i) => `def row_${i}(cells):\n    return cells[${i}]\n`);
    const out = path.join(folder, 'profiles');
    const source = file('rows.py', text.join('\n'));
    const made = run('calibrate', '--text', source, '--out', out, '--target', 'fast', '--json');
    expect(made.status).toBe(0);
    const { profiles } = JSON.parse(made.stdout) as { profiles: { target: string; path: string }[] };
    expect(profiles).toMatchObject([{ target: 'fast' }]);
    const profile = profiles[0]!.path;
    const repo = path.join(folder, 'rows');
    writeFolder(repo, [['rows.py', readFileSync(source)]]);
    const prefill = (file: string) =>
      run('prefill', '--repo', repo, '--prefill-mode', 'adaptive', '--profile', file);
    expect(prefill(profile).status).toBe(0);
    const other = file(
      'other.json',
      readFileSync(profile, 'utf8').replace(/"model": "..../, '"model": "beef'),
    );
    expect(prefill(other)).toMatchObject({
      status: 1,
      stderr: expect.stringMatching(/made for another model/) as string,
    });
  }, 120_000);
});
