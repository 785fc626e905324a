/** Another branch, and files that git is to ignore from now on: what both have in common stays read. */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { rootOf, Session } from '../../../server/answers/session';
import { openModel, type OpenModel } from '../../../server/models/openModel';
import { builtInModel, root, writeFolder } from '../reference';

const folder = mkdtempSync(path.join(tmpdir(), 'longview-branch-'));
const git = (...args: string[]) =>
  execFileSync('git', ['-c', 'user.name=a', '-c', 'user.email=a@b.c', ...args], {
    cwd: folder,
    stdio: 'pipe',
  });
const config = (limit: number) =>
  `RETRY_LIMIT = ${limit}\n\n\ndef load_config(path):\n    return open(path).read()\n`;
const limit = 'What is the value of `RETRY_LIMIT`?';
let model: OpenModel;
let session: Session;

/** The answer, and how many tokens the engine read for it. */
async function ask(question: string) {
  const before = await model.engine.counters();
  const { answer } = await session.ask({ question });
  return { answer, read: (await model.engine.counters()).prefilledTokens - before.prefilledTokens };
}

const packed = async () => (await session.context()).files.map((file) => file.path).sort();

beforeAll(async () => {
  writeFolder(folder, [
    ['lib/pack.ts', readFileSync(path.join(root, 'server/prompt/pack.ts'), 'utf8')],
    ['lib/scan.ts', readFileSync(path.join(root, 'server/workspace/scan.ts'), 'utf8')],
    ['lib/errors.ts', readFileSync(path.join(root, 'server/errors.ts'), 'utf8')],
    ['app/legacy.py', 'OLD_DELAY = 5\n'],
    ['app/config.py', config(17)],
    ['.gitignore', 'build/\n'],
  ]);
  git('init', '-b', 'main');
  git('add', '.');
  git('commit', '-m', 'x');
  git('switch', '-c', 'feature');
  git('mv', 'app/legacy.py', 'app/start.py');
  writeFileSync(path.join(folder, 'app/start.py'), 'MAIN_DELAY = 41\n');
  writeFileSync(path.join(folder, 'app/config.py'), config(23));
  git('add', '.');
  git('commit', '-m', 'y');
  git('switch', 'main');
  model = await openModel(builtInModel);
  session = await Session.create(model, [rootOf(folder)], { gitHistory: true });
});
afterAll(async () => {
  await session.dispose();
  await model.dispose();
  rmSync(folder, { recursive: true });
});

describe('a repository under git', { timeout: 180_000 }, () => {
  it('costs another branch the files that differ, and the way back too', async () => {
    const first = await ask(limit);
    expect(first.answer).toContain('17');
    expect(first.read).toBeGreaterThan(3000);
    const question = (await ask(limit)).read;

    git('switch', 'feature');
    const there = await ask(limit);
    expect(there.answer).toContain('23');
    const { files } = await session.context();
    const tokens = (name: string) => files.find((file) => file.path === name)!.tokens;
    expect(there.read).toBeLessThanOrEqual(tokens('app/config.py') + tokens('app/start.py') + 64 + question);
    expect((await ask('What is the value of `MAIN_DELAY`?')).answer).toContain('41');
    expect(await packed()).toEqual([
      '.gitignore',
      'app/config.py',
      'app/start.py',
      'lib/errors.ts',
      'lib/pack.ts',
      'lib/scan.ts',
    ]);

    git('switch', 'main');
    const back = await ask(limit);
    expect(back.answer).toContain('17');
    expect(back.read).toBeLessThan(there.read + 64);
    expect(await packed()).toContain('app/legacy.py');
  });

  it('leaves out what .gitignore names from now on, and takes it back, without reading the rest again', async () => {
    writeFileSync(path.join(folder, '.gitignore'), 'build/\nerrors.ts\n');
    const without = await ask(limit);
    expect(await packed()).not.toContain('lib/errors.ts');
    expect(without.read).toBeLessThan(150);
    writeFileSync(path.join(folder, '.gitignore'), 'build/\n');
    const again = await ask(limit);
    const { files } = await session.context();
    const errors = files.find((file) => file.path === 'lib/errors.ts')!;
    expect(again.read).toBeLessThan(errors.tokens + 150);
    expect(again.answer).toContain('17');
  });
});
