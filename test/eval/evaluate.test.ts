/** The evaluation itself, end to end on a small repository: the built-in model's own answers are right, planted ones wrong. */
import { execFile } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { openNativeEngine } from '../../server/engine/nativeEngine';
import { builtInModel } from '../../server/models/locate';
import { openModel, type OpenModel } from '../../server/models/openModel';
import { fileText, head, tail } from '../../server/prompt/frame';
import { concat } from '../../server/prompt/template';
import { force, type Forced } from './forced';
import { parseModes } from './modes';
import { writeData, type Data, type Sequence } from './sequences';
import { projectRoot } from './serverClient';
import { quantile, summarize, type Summary } from './summary';
import { writeTinyModel } from './tinyModel';

process.env.LONGVIEW_ADDON ??= join(projectRoot, 'dist/longview.node');

const source = `"""Waits between attempts."""

RETRY_LIMIT = 7
BACKOFF_SECONDS = 0.25


def next_delay(attempt, jitter=0.5):
    """Return the seconds to wait before an attempt."""
    return BACKOFF_SECONDS * 2**attempt + jitter


class RetryPolicy:
    """Decides whether another attempt is made."""
`;
/** Enough of other code that there is something to leave out. */
const filler = Array.from(
  { length: 40 },
  (_, i) => `def row_${i}(cells):\n    return cells[${i}:${i + 7}]\n`,
).join('\n');
const questions = ['What is the value of `RETRY_LIMIT`?', 'Where is `next_delay` defined?'];
const folder = mkdtempSync(join(tmpdir(), 'longview-eval-'));
let model: OpenModel;
/** Two questions in one conversation, with the answers that the model gives by itself. */
let sequence: Sequence;

beforeAll(async () => {
  model = await openModel(builtInModel(projectRoot), { device: 'cpu' });
  const { tokenizer, format, engine } = model;
  const encode = (text: string) => tokenizer.encode(text);
  const files = ['retry/policy.py', 'retry/table.py'];
  const text = [head('retry', files), fileText(files[0]!, source), fileText(files[1]!, filler), tail];
  const parts = [format.system(concat(...text.map(encode)))];
  const answers: Sequence['answers'] = [];
  const context = await engine.createContext();
  await context.extend(parts[0]!);
  for (const [i, question] of questions.entries()) {
    const turn = i === 0 ? format.question(question) : format.followUp(question);
    await context.extend(turn);
    const answer = await context.generate({ maxTokens: 60, stopTokens: tokenizer.stopTokens });
    expect(answer.finish).toBe('stop');
    answers.push({ from: context.length - answer.tokens.length, to: context.length, kind: '' });
    parts.push(turn, answer.tokens);
  }
  sequence = { index: 0, tokens: concat(...parts), answers };
  await context.dispose();
});
afterAll(async () => {
  await model.dispose();
  rmSync(folder, { recursive: true });
});

const dense = parseModes('dense')[0]!;
const evaluated = async (sequences: Sequence[]) => {
  const forced = [];
  for (const one of sequences) forced.push(await force(model.engine, dense, one));
  return forced;
};
const dataOf = (sequences: Sequence[]): Data => ({ n: sequence.tokens.length, sequences });

/** The sequence with another token in the middle of its last answer. */
function withWrongToken(): Sequence {
  const tokens = sequence.tokens.slice();
  const { from, to } = sequence.answers[1]!;
  const at = (from + to) >> 1;
  tokens[at] = tokens[at]! + 1;
  return { ...sequence, index: 1, tokens };
}

describe('an evaluation', () => {
  it("finds the model's own answers exact, and dense no different from dense", async () => {
    const data = dataOf([sequence]);
    const summary = summarize('dense', data, await evaluated([sequence]), await evaluated([sequence]));
    expect(summary).toMatchObject({ answers: 2, exact: 1, top1: 1, meanAbsoluteDeltaNll: 0, p99DeltaNll: 0 });
    expect(summary).toMatchObject({ density: 1, prefillDensity: 1 });
    expect(summary.nll).toBeGreaterThan(0);
    expect(summary.nll).toBeLessThan(0.5);
    expect(summary.seconds).toBeGreaterThan(0);
  });

  it('sees a planted wrong token: one answer less is exact, and the tokens cost more', async () => {
    const sequences = [sequence, withWrongToken()];
    const data = dataOf(sequences);
    const right = await evaluated([sequence, sequence]);
    const wrong = await evaluated(sequences);
    const summary = summarize('planted', data, right, wrong);
    expect(summary.exact).toBe(0.75);
    expect(summary.meanDeltaNll).toBeGreaterThan(0);
    expect(summary.meanAbsoluteDeltaNll).toBeGreaterThanOrEqual(summary.meanDeltaNll);
    expect(summary.worstSequence.sequence).toBe(1);
    expect(summary.worstBlock.sequence).toBe(1);
  });

  it('reads each sequence as if it were the first, whatever the engine has read before and how', async () => {
    const adaptive = parseModes('adaptive')[0]!;
    const open = () =>
      openNativeEngine(builtInModel(projectRoot), { device: 'cpu', prefill: { mode: 'adaptive' } });
    // Recall is summed by all threads in the order in which they end.
    const figures = ({ nll, top1, density, prefillDensity, layers }: Forced) => {
      return { nll, top1, density, prefillDensity, layers: layers.map((layer) => layer.density) };
    };
    const engine = await open();
    try {
      const first = figures(await force(engine, adaptive, sequence));
      expect(first.prefillDensity).toBeLessThan(1);
      expect(figures(await force(engine, adaptive, sequence))).toEqual(first);
      // What was read densely is none of it, nor is what was read sparsely in the dense run.
      const densely = await force(engine, dense, sequence);
      expect(densely.density).toBe(1);
      expect(densely.nll).not.toEqual(first.nll);
      expect(figures(await force(engine, adaptive, sequence))).toEqual(first);
      const held = await engine.createContext();
      await held.extend(sequence.tokens.subarray(0, 256));
      await expect(force(engine, adaptive, sequence)).rejects.toThrow(/holds another context/);
      await held.dispose();
    } finally {
      await engine.dispose();
    }
  });

  it('prints a line of JSON for each mode, and ends with 2 when called wrongly', async () => {
    const file = join(folder, 'data.safetensors');
    const answers = sequence.answers.map((answer) => ({ ...answer, kind: 'look' }));
    // Twice: what was read for the one must not be taken over for the other.
    writeData(file, dataOf([sequence, sequence].map((one) => ({ ...one, answers }))));
    const run = (...args: string[]) =>
      promisify(execFile)(
        process.execPath,
        ['--import', 'tsx', join(projectRoot, 'test/eval/evaluate.ts'), ...args],
        { cwd: projectRoot },
      );
    const { stdout } = await run(
      '--data',
      file,
      '--mode',
      'dense,adaptive,auto:exact',
      '--device',
      'cpu',
      '--json',
    );
    const lines = stdout
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line) as Summary);
    expect(lines.map(({ mode }) => mode)).toEqual(['dense', 'adaptive', 'auto:exact']);
    expect(lines[0]).toMatchObject({
      mode: 'dense',
      n: sequence.tokens.length,
      answers: 4,
      exact: 1,
      kinds: { look: 1 },
    });
    const { density, prefillDensity } = lines[1]!;
    expect(prefillDensity).toBeGreaterThan(0);
    expect(prefillDensity).toBeLessThan(1);
    // The rows of the questions are dense, and counted.
    expect(density).toBeGreaterThan(prefillDensity);
    expect(density).toBeLessThan(1);
    expect(lines[2]).toMatchObject({ top1: 1, meanDeltaNll: 0, p99DeltaNll: 0, density: 1 });
    expect(lines[0]!.layers).toBeUndefined();
    const layers = lines[1]!.layers!;
    expect(layers).toHaveLength(model.engine.model.layers - 1); // of the last, only results attend
    const meanDensity = layers.reduce((sum, layer) => sum + layer.density, 0) / layers.length;
    expect(meanDensity).toBeCloseTo(prefillDensity, 6);
    for (const { recall } of layers) {
      expect(recall).toBeGreaterThan(0);
      expect(recall).toBeLessThanOrEqual(1 + 1e-6);
    }

    // By a profile in which every head is dense there is nothing to lose.
    const heads = Array.from({ length: 9 }, () => ({ pattern: 'dense' }));
    const profile = (fingerprint: string) => {
      const path = join(folder, 'heads.json');
      const format = { format: 'longview-head-profile', version: 1, model: fingerprint, kernel_version: 2 };
      const layers = Array.from({ length: model.engine.model.layers }, () => heads);
      writeFileSync(path, JSON.stringify({ ...format, layers }));
      return ['--profile', path, '--data', file, '--mode', 'adaptive', '--device', 'cpu', '--json'];
    };
    const byProfile = await run(...profile(model.engine.model.fingerprint));
    expect(JSON.parse(byProfile.stdout)).toMatchObject({ mode: 'adaptive', top1: 1, prefillDensity: 1 });
    await expect(run(...profile('0'.repeat(32)))).rejects.toMatchObject({
      code: 1,
      stderr: expect.stringMatching(/made for another model/) as string,
    });

    // What cannot be read is said before anything is run; what follows the last answer is no part of it.
    const [answer] = sequence.answers;
    const tokens = new Int32Array(model.engine.window + 1).fill(-1);
    tokens.set(sequence.tokens.subarray(0, answer!.to));
    const padded = { n: tokens.length, sequences: [{ index: 0, tokens, answers: [answer!] }] };
    writeData(file, padded);
    const one = await run('--data', file, '--mode', 'dense', '--device', 'cpu', '--json');
    expect(JSON.parse(one.stdout)).toMatchObject({ n: tokens.length, answers: 1, exact: 1 });
    const unknown = {
      ...padded.sequences[0]!,
      tokens: tokens.slice().fill(model.engine.model.vocabularySize, 3, 4),
    };
    writeData(file, { ...padded, sequences: [...padded.sequences, unknown] });
    await expect(run('--data', file, '--mode', 'dense', '--device', 'cpu')).rejects.toMatchObject({
      code: 1,
      stderr: expect.stringMatching(/^Sequence 1 has the token \d+ at position 3/) as string,
    });

    await expect(run('--mode', 'dense')).rejects.toMatchObject({ code: 2 });
    await expect(run('--data', file, '--mode', 'denser')).rejects.toMatchObject({ code: 2 });
    await expect(run('--data', join(folder, 'none'), '--mode', 'dense')).rejects.toMatchObject({ code: 1 });
  });
});

describe('a model of one layer', () => {
  it('is evaluated in every mode: no layer of it attends to what is pre-filled, and all is dense', async () => {
    const path = join(folder, 'one-layer');
    writeTinyModel(path);
    const tokens = Int32Array.from({ length: 200 }, (_, i) => i % 8);
    const answers = [{ from: 190, to: 195, kind: '' }];
    const short: Sequence = { index: 0, tokens, answers };
    const adaptive = parseModes('adaptive')[0]!;
    const engine = await openNativeEngine(path, { device: 'cpu', prefill: { mode: 'adaptive' } });
    try {
      const forced = [await force(engine, adaptive, short)];
      const summary = summarize('adaptive', { n: 200, sequences: [short] }, forced, forced);
      expect(summary).toMatchObject({ tokens: 5, density: 1, prefillDensity: 1 });
      expect(summary.nll).toBeCloseTo(Math.log(8), 6);
    } finally {
      await engine.dispose();
    }
  });
});

describe('the figures', () => {
  it('have quantiles between the two nearest values', () => {
    expect(quantile([3, 1, 2], 0.5)).toBe(2);
    expect(quantile([0, 10], 0.99)).toBeCloseTo(9.9);
    expect(quantile([7], 0.99)).toBe(7);
  });

  it('have the layers of all sequences, of which short ones are dense', () => {
    const answers = [{ from: 1, to: 2, kind: '' }];
    const sequences = [0, 1, 2].map((index) => ({ index, tokens: Int32Array.of(1, 2), answers }));
    const layers = [
      { density: 0.4, recall: 0.9 },
      { density: 0.1, recall: 0.7 },
    ];
    const forced = [[], layers, []].map((list) => ({
      nll: Float64Array.of(1),
      top1: Int32Array.of(2),
      truth: Int32Array.of(2),
      density: 1,
      prefillDensity: 1,
      layers: list,
      seconds: 1,
    }));
    const of = (...rows: number[]) =>
      summarize(
        'adaptive',
        { n: 2, sequences: rows.map((row) => sequences[row]!) },
        rows.map((row) => forced[row]!),
        rows.map((row) => forced[row]!),
      ).layers;
    expect(of(1)).toEqual(layers);
    const [first, second] = of(0, 1)!;
    expect(
      [first!.density, first!.recall, second!.density, second!.recall].map((x) => +x.toFixed(6)),
    ).toEqual([0.7, 0.95, 0.55, 0.85]);
    expect(of(1, 0)).toEqual(of(0, 1));
    expect(of(0, 2)).toBeUndefined();
  });

  it('are of the modes that were asked for', () => {
    expect(parseModes('dense, auto:fast').map(({ mode, target }) => [mode, target])).toEqual([
      ['dense', undefined],
      ['auto', 'fast'],
    ]);
    for (const wrong of ['', 'dense,', 'auto:slow', 'auto:fast:exact', 'toString'])
      expect(() => parseModes(wrong)).toThrow(/Modes: dense/);
  });
});
