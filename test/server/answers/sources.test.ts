/** Focus on the tokens of a packed repository, as an answer would leave it, to files and lines. */
import { mkdtempSync, rmSync, utimesSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { pathToFileURL } from 'node:url';
import { describe, expect, it } from 'vitest';
import { findSources } from '../../../server/answers/sources';
import { readModelMetadata } from '../../../server/engine/nativeEngine';
import { Packer, type PackedRepository } from '../../../server/prompt/pack';
import { createTokenizer } from '../../../server/tokenizer/tokenizer';
import { vocabularyFromGguf } from '../../../server/tokenizer/vocabulary';
import { scanFolder } from '../../../server/workspace/scan';
import { builtInModel, writeFolder } from '../reference';

const tokenizer = createTokenizer(vocabularyFromGguf(readModelMetadata(builtInModel)));
/** Tokens of the chat template before the repository's, and of a question behind them. */
const start = 3;
const behind = 20;

async function packed(files: [string, string][]) {
  const folder = mkdtempSync(path.join(tmpdir(), 'longview-sources-'));
  writeFolder(folder, files);
  const packer = new Packer({ name: 'r', tokenizer, budget: 60_000 });
  const pack = async () => packer.pack(await scanFolder(folder));
  return { folder, packer, pack, repository: await pack() };
}

/** Puts weights on the tokens that begin in the texts, each of which stands once in the prompt. */
function focusOn(repository: PackedRepository, weights: Record<string, number>): Float32Array {
  const focus = new Float32Array(start + repository.tokens.length + behind);
  const decoder = tokenizer.decoder();
  const begins: number[] = [];
  let prompt = '';
  for (const token of repository.tokens) {
    begins.push(prompt.length);
    prompt += decoder.push(token);
  }
  for (const [text, weight] of Object.entries(weights)) {
    const at = prompt.indexOf(text);
    expect([at >= 0, prompt.indexOf(text, at + 1)], text).toEqual([true, -1]);
    const inside = begins.flatMap((begin, i) => (begin >= at && begin < at + text.length ? [i] : []));
    expect(inside, text).not.toEqual([]);
    for (const i of inside) focus[start + i]! += weight / inside.length;
  }
  return focus;
}

const sources = (repository: PackedRepository, focus: Float32Array) =>
  findSources(focus, start, repository, tokenizer).map(({ path, share, span }) => [
    path,
    share,
    span && [span.startLine, span.endLine],
  ]);

const filler = (name: string) => Array.from({ length: 60 }, (_, i) => `${name}_${i} = make(${i})\n`).join('');

describe('sources', () => {
  it('ranks files by what they got of all that went to files, with the lines that took most of it', async () => {
    const { folder, repository } = await packed([
      ['lib/a.py', 'import os\n\nALPHA = 1\n'],
      ['lib/b.py', `${filler('beta')}\ndef beta():\n    return 'two'\n`],
    ]);
    const focus = focusOn(repository, {
      'You answer questions': 50,
      '<tree>\nlib/': 50,
      'ALPHA = 1': 1,
      'def beta():': 2,
      "return 'two'": 1,
    });
    focus.fill(9, start + repository.tokens.length);
    expect(sources(repository, focus)).toEqual([
      ['lib/b.py', 0.75, [62, 62]],
      ['lib/a.py', 0.25, [3, 3]],
    ]);
    expect(findSources(focus, start, repository, tokenizer)[0]!.uri).toBe(
      pathToFileURL(path.join(folder, 'lib/b.py')).href,
    );
    const even = focusOn(repository, { 'beta_0 =': 0.9, 'def beta():': 1, "return 'two'": 1 });
    expect(sources(repository, even)).toEqual([['lib/b.py', 1, [62, 63]]]);
    // The fewest lines, and of as few those that got most.
    const first = focusOn(repository, { 'beta_0 =': 1.1, 'def beta():': 0.5, "return 'two'": 0.5 });
    expect(sources(repository, first)).toEqual([['lib/b.py', 1, [1, 1]]]);
    const most = focusOn(repository, { 'beta_0 =': 0.4, 'beta_1 =': 0.5, 'beta_2 =': 0.3 });
    expect(sources(repository, most)).toEqual([['lib/b.py', 1, [1, 2]]]);
  });

  it('counts the line that frames a file for the file, not for its lines', async () => {
    const { repository } = await packed([['a.py', 'ALPHA = 1\nBETA = 2\n']]);
    expect(sources(repository, focusOn(repository, { '<file path="a.py">': 8, 'BETA = 2': 2 }))).toEqual([
      ['a.py', 1, [2, 2]],
    ]);
    // Lines that got next to nothing of a file are not what it was looked at for.
    expect(sources(repository, focusOn(repository, { '<file path="a.py">': 9, 'BETA = 2': 1 }))).toEqual([
      ['a.py', 1, undefined],
    ]);
    expect(sources(repository, focusOn(repository, { '<file path="a.py">': 1 }))).toEqual([
      ['a.py', 1, undefined],
    ]);
    expect(sources(repository, focusOn(repository, { '</file>': 1 }))).toEqual([['a.py', 1, undefined]]);
  });

  it('leaves out what got little, lists eight at most, and names no lines where they are many', async () => {
    const { repository } = await packed(
      Array.from({ length: 12 }, (_, i): [string, string] => [`m${i}.py`, filler(`value_${i}_of`)]),
    );
    const one = focusOn(repository, { 'value_1_of_0 =': 98.5, 'value_2_of_0 =': 1.5 });
    expect(sources(repository, one).map(([file]) => file)).toEqual(['m1.py']);
    const { places, tokens } = repository;
    const even = new Float32Array(start + tokens.length + behind).fill(1);
    // A few more for some, so that the order is certain.
    places.slice(4).forEach((place, i) => even.fill(2 + i, start + place.start, start + place.end));
    const found = sources(repository, even);
    expect(found.map(([file]) => file)).toEqual([11, 10, 9, 8, 7, 6, 5, 4].map((i) => `m${i}.py`));
    // Thirty of sixty lines hold half.
    expect(found[0]![2]).toBeDefined();
    const ends = focusOn(repository, { 'value_0_of_0 =': 1, 'value_0_of_45 =': 1.1, 'value_0_of_59 =': 1 });
    expect(sources(repository, ends)).toEqual([['m0.py', 1, [46, 60]]]);
    const long = (await packed([['m.py', filler('a') + filler('b')]])).repository;
    const far = focusOn(long, { 'a_0 =': 1, 'a_50 =': 1, 'b_50 =': 1 });
    expect(sources(long, far)).toEqual([['m.py', 1, undefined]]);
  });

  it('counts earlier versions for their file, names lines of the latest alone, and forgets deleted files', async () => {
    const { folder, pack } = await packed([
      ['a.py', 'FIRST = 1\n'],
      ['b.py', 'OTHER = 1\n'],
      ['c.py', filler('c')],
    ]);
    const edited = path.join(folder, 'a.py');
    writeFileSync(edited, '\n\nSECOND = 2\n');
    utimesSync(edited, 1_800_000_000, 1_800_000_000);
    rmSync(path.join(folder, 'b.py'));
    const repository = await pack();
    const weights = { 'FIRST = 1': 1, 'OTHER = 1': 10, '<deleted path="b.py"/>': 10, 'c_0 = make': 1 };
    const later = focusOn(repository, { ...weights, 'SECOND = 2': 2 });
    expect(sources(repository, later)).toEqual([
      ['a.py', 0.75, [3, 3]],
      ['c.py', 0.25, [1, 1]],
    ]);
    const earlier = focusOn(repository, { ...weights, 'SECOND = 2': 0.25 });
    expect(sources(repository, earlier)[0]).toEqual(['a.py', 0.556, undefined]);
  });

  it('counts lines as editors do, whatever is in them', async () => {
    const text = '\ufeff# 🦉🪶 日本語 ﷽ \r\n\r\n\r\nα = "𝔘𝔫𝔦"\r\nLAST = "ﬁ🧿"\r\n\r\n';
    const { repository } = await packed([['ö/ä.py', text]]);
    for (const [needle, line] of [
      ['日本語', 1],
      ['α', 4],
      ['LAST', 5],
      ['🧿"', 5],
    ] as const)
      expect(sources(repository, focusOn(repository, { [needle]: 1 })), needle).toEqual([
        ['ö/ä.py', 1, [line, line]],
      ]);
  });

  it('finds nothing where there is nothing to find', async () => {
    const { packer, pack, repository } = await packed([['a.py', 'ALPHA = 1\n']]);
    expect(sources(repository, new Float32Array(start + repository.tokens.length))).toEqual([]);
    expect(sources(repository, new Float32Array(start + repository.tokens.length).fill(NaN))).toEqual([]);
    expect(sources(repository, new Float32Array(0))).toEqual([]);
    expect(sources(repository, new Float32Array(start + 10).fill(1))).toEqual([]);
    // Of a packing on disk that is older than the sizes in it.
    packer.adopt({ ...packer.current!, baseSizes: [] });
    const old = await pack();
    expect(old.places).toEqual([]);
    expect(sources(old, focusOn(old, { 'ALPHA = 1': 1 }))).toEqual([]);
  });
});
