/** Data made from a small repository: what is asked, what is marked as the answer, and the frame around it. */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { readModelMetadata } from '../../server/engine/nativeEngine';
import { builtInModel } from '../../server/models/locate';
import { createTokenizer } from '../../server/tokenizer/tokenizer';
import type { Tokenizer } from '../../server/tokenizer/types';
import { vocabularyFromGguf } from '../../server/tokenizer/vocabulary';
import { readFacts } from './facts';
import { lookupTurns } from './lookupTurns';
import { makeData } from './makeData';
import { seededRandom } from './questions';
import { readData, type Sequence } from './sequences';
import { projectRoot } from './serverClient';

process.env.LONGVIEW_ADDON ??= join(projectRoot, 'dist/longview.node');

const policy = `"""Waits between attempts."""

import math
from .errors import RetryError

RETRY_LIMIT = 7
BANNER = "twice" 'quoted'


def next_delay(attempt, jitter=0.5) -> float:
    """Return the seconds to wait before an attempt. More text."""
    return math.exp(attempt) + jitter


class RetryPolicy(BasePolicy):
    """Decides whether another attempt is made."""

    def shared_name(self): ...
`;
const other = 'def shared_name(x):\n    pass\n\n\ndef unseen_helper():\n    pass\n' + '# filler\n'.repeat(30);

const parent = mkdtempSync(join(tmpdir(), 'longview-make-'));
const folder = join(parent, 'retry');
let tokenizer: Tokenizer;
beforeAll(() => {
  tokenizer = createTokenizer(vocabularyFromGguf(readModelMetadata(builtInModel(projectRoot))));
  mkdirSync(join(folder, 'core'), { recursive: true });
  writeFileSync(join(folder, 'core/policy.py'), policy);
  writeFileSync(join(folder, 'other.py'), other);
  writeFileSync(join(folder, 'broken.py'), 'def (:\n');
});
afterAll(() => {
  tokenizer.dispose();
  rmSync(parent, { recursive: true });
});

function answersOf({ tokens, answers }: Sequence): string[] {
  return answers.map(({ from, to }) => tokenizer.decode(tokens.subarray(from, to)));
}

describe('turns about real code', () => {
  it('answer from what the files say, in the words that the model knows', () => {
    const [file, rest] = readFacts(folder, [
      { path: 'core/policy.py', text: policy },
      { path: 'other.py', text: other },
      { path: 'broken.py', text: '' },
    ]);
    const turns = lookupTurns([file!], [rest!], 40, seededRandom(1));
    const all = new Map(turns.map(({ question, answer }) => [question, answer]));
    const possible: Record<string, string> = {
      'What is the value of `RETRY_LIMIT`?': '`RETRY_LIMIT` is `7`, set in [core/policy.py#RETRY_LIMIT].',
      'Where is `unseen_helper` defined?': "I can't find `unseen_helper` in this repository.",
      'What does core/policy.py import?': '[core/policy.py] imports `math` and `.errors`.',
      'Where is `next_delay` defined?': '`next_delay` is a function in [core/policy.py#next_delay].',
      'Where is `RetryPolicy` defined?': '`RetryPolicy` is a class in [core/policy.py#RetryPolicy].',
      'Where is `shared_name` defined?': '`shared_name` is a function in [core/policy.py#shared_name].',
      'What does `next_delay` do?':
        'Return the seconds to wait before an attempt. It is a function in [core/policy.py#next_delay].',
      'What does `RetryPolicy` do?':
        'Decides whether another attempt is made. It is a class in [core/policy.py#RetryPolicy].',
      'What parameters does `next_delay` take?':
        '`next_delay` takes `attempt` and `jitter=0.5`: [core/policy.py#next_delay].',
    };
    for (const [question, answer] of all) expect([question, answer]).toEqual([question, possible[question]]);
    // Each symbol is asked for once; a string of two quotations has no one way to be quoted.
    expect(turns.map(({ kind }) => kind).sort()).toEqual('doc imports missing value where where'.split(' '));
  });
});

describe('made data', () => {
  it.each(['lookups', 'ruler'] as const)('of %s holds packed files, turns and marked answers', (tasks) => {
    const file = join(parent, `${tasks}.safetensors`);
    const options = { length: 4096, count: 2, repositories: [folder], tasks, seed: 1 };
    makeData(file, { ...options, model: builtInModel(projectRoot) });
    const data = readData(file);
    expect([data.n, data.sequences.length]).toEqual([4096, 2]);
    for (const sequence of data.sequences) {
      const last = sequence.answers.at(-1)!.to;
      const text = tokenizer.decode(sequence.tokens.subarray(0, last));
      expect(text).toMatch(/^<\|im_start\|>system\nYou answer questions/);
      expect(text).toContain(`<file path="core/policy.py">\n${policy.trimEnd()}\n</file>\n`);
      for (const answer of answersOf(sequence)) {
        expect(answer).toMatch(/\.<\|im_end\|>$/);
        expect(text).toContain(`<|im_end|>\n<|im_start|>assistant\n${answer}`);
      }
      // What a made-up file says is what is asked: the literal stands in the prompt, before the questions.
      const literal = (answer: string) => /^`(\w+)` is `(.+?)`, set in \[(.+?)#/.exec(answer);
      for (const match of answersOf(sequence)
        .map(literal)
        .filter((found) => found !== null)) {
        const [, name, value, path] = match;
        expect(text).toMatch(new RegExp(`<file path="${path!}">[^<]*\\n${name!} = ${value!}\\n`));
      }
    }
    const kinds = new Set(data.sequences.flatMap(({ answers }) => answers.map(({ kind }) => kind)));
    if (tasks === 'ruler')
      expect([...kinds].sort()).toEqual(['common_words', 'key_value', 'needle', 'tracking']);
    makeData(`${file}.again`, { ...options, model: builtInModel(projectRoot) });
    expect(readData(`${file}.again`)).toEqual(data);
  });
});
