/** What `npm run eval` prints of files as strangers have them, on a model that is made in a moment. */
import { execFile } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir, totalmem } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { writeSafetensors } from './safetensors';
import { projectRoot } from './serverClient';
import type { Summary } from './summary';
import { tinyVocabulary, writeTinyModel } from './tinyModel';

const folder = mkdtempSync(join(tmpdir(), 'longview-eval-'));
const model = join(folder, 'model');
beforeAll(() => writeTinyModel(model));
afterAll(() => rmSync(folder, { recursive: true }));

const n = 40;

/** A file in which each row's mask marks the tokens in these places; the tokens are the model's, one after another. */
function writeRows(...marked: number[][]): string {
  const file = join(folder, 'data.safetensors');
  const shape = [marked.length, n];
  const tokens = Int32Array.from({ length: marked.length * n }, (_, i) => i % tinyVocabulary);
  const mask = new Uint8Array(tokens.length);
  for (const [row, places] of marked.entries()) for (const at of places) mask[row * n + at] = 1;
  writeSafetensors(file, {
    tokens: { dtype: 'I32', shape, data: tokens },
    mask: { dtype: 'U8', shape, data: mask },
  });
  return file;
}

interface Run {
  code: number;
  lines: Partial<Summary>[];
  stderr: string;
}

async function evaluate(...args: string[]): Promise<Run> {
  const all = [
    '--import',
    'tsx',
    join(projectRoot, 'test/eval/evaluate.ts'),
    '--device',
    'cpu',
    '--json',
    ...args,
  ];
  const options = { cwd: projectRoot };
  const { code, stdout, stderr } = await promisify(execFile)(process.execPath, all, options).then(
    (done) => ({ code: 0, ...done }),
    (failed: { code: number; stdout: string; stderr: string }) => failed,
  );
  const lines = stdout.split('\n').filter((line) => line !== '');
  return { code, lines: lines.map((line) => JSON.parse(line) as Partial<Summary>), stderr };
}

describe('an evaluation says', () => {
  it('which sequences it passes over', async () => {
    const file = writeRows([35, 36], [], [38]);
    const run = (...args: string[]) => evaluate('--data', file, '--model', model, '--mode', 'dense', ...args);
    const { code, lines, stderr } = await run('--sequences', '1,2');
    expect([code, lines]).toEqual([0, [expect.objectContaining({ sequences: 1, tokens: 1 })]]);
    expect(stderr).toMatch(/no answer in them: 1 of 2 sequences \(1\)/);
    for (const [rows, sentence] of [
      ['1', /none of these sequences has an answer/],
      ['2,3', /no sequence 3/],
    ] as const)
      expect(await run('--sequences', rows)).toMatchObject({
        code: 1,
        lines: [],
        stderr: expect.stringMatching(sentence) as string,
      });
  });

  it('where logits are not finite, instead of giving figures that are null', async () => {
    const poisoned = join(folder, 'poisoned');
    const embedding = new Float32Array(tinyVocabulary * 32);
    embedding.fill(NaN, 5 * 32, 6 * 32);
    writeTinyModel(poisoned, { embedding });
    const file = writeRows([3], [38]);
    const { code, lines, stderr } = await evaluate(
      '--data',
      file,
      '--model',
      poisoned,
      '--mode',
      'dense,adaptive',
    );
    const sentence = expect.stringMatching(/^dense, sequence 0: .*position 3 is NaN/) as string;
    expect([code, lines]).toEqual([1, ['dense', 'adaptive'].map((mode) => ({ mode, n, error: sentence }))]);
    expect(stderr).toMatch(/dense, sequence 0: .*not finite/);
  });

  it('why a mode has no figures, and gives those of the others', async () => {
    const file = writeRows([38]);
    const profile = join(folder, 'profile.json');
    writeFileSync(profile, '[]');
    const { code, lines, stderr } = await evaluate(
      ...['--data', file, '--model', model, '--profile', profile, '--mode', 'adaptive,a_shape,dense'],
    );
    expect([code, lines]).toEqual([
      1,
      [
        { mode: 'adaptive', n, error: expect.stringMatching(/^adaptive: .*profile.json/) as string },
        expect.objectContaining({ mode: 'a_shape', tokens: 1 }),
        expect.objectContaining({ mode: 'dense', tokens: 1 }),
      ],
    ]);
    expect(stderr).toMatch(/^adaptive: .*profile.json/m);
  });

  it('what the engine does in another way than it was asked to', async () => {
    const file = writeRows([38]);
    const { code, stderr } = await evaluate(
      ...['--data', file, '--model', model, '--kv-format', 'fp8', '--mode', 'adaptive'],
    );
    expect(code).toBe(0);
    expect(stderr).toMatch(/^dense: .*compute capability 8.9/m);
  });

  // 2^38 bytes of KV state.
  const large = totalmem() > 2 ** 37;
  it.skipIf(large)(
    'in which KV format it reads where memory is short, and goes on with that in all modes',
    async () => {
      const endless = join(folder, 'endless');
      writeTinyModel(endless, { window: 2 ** 31 });
      const { code, stderr } = await evaluate('--data', writeRows([38]), '--model', endless);
      expect(code).toBe(0);
      expect(stderr).toMatch(/^dense: .*kept in 8 bits/m);
      // Asked for by name: it is not chosen anew.
      expect(stderr).not.toMatch(/^adaptive: .*kept in 8 bits/m);
    },
  );

  it("a file's own words without the control characters in them", async () => {
    const file = join(folder, 'data.safetensors');
    const mask = { dtype: 'U8', shape: [1, 2], data: Uint8Array.of(0, 1) };
    writeSafetensors(file, {
      tokens: { dtype: 'I32', shape: [1, 2], data: Int32Array.of(1, 2) },
      '\u001b[2J': mask,
    });
    const { code, stderr } = await evaluate('--data', file, '--model', model);
    expect(code).toBe(1);
    expect(stderr).toContain('no tensor `mask`; there are: __metadata__, tokens, \\u001b[2J\n');
  });
});
