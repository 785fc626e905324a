// A model whose window can be larger: a Qwen3 of one layer, all zeros, with the built-in model's vocabulary, as a GGUF file.
import { Buffer } from 'node:buffer';
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { root } from './codeServer.mjs';

const u32 = (value) => Buffer.from(Uint32Array.of(value).buffer);
const u64 = (value) => Buffer.from(BigUint64Array.of(BigInt(value)).buffer);
const f32 = (value) => Buffer.from(Float32Array.of(value).buffer);
const text = (value) => Buffer.concat([u64(Buffer.byteLength(value)), Buffer.from(value)]);

/** The keys and values of a GGUF file that `wanted` takes, as they lie there. */
function valuesOf(gguf, wanted) {
  const number = (at) => Number(gguf.readBigUInt64LE(at));
  const widths = [1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8];
  const end = (type, at) => {
    if (type === 8) return at + 8 + number(at);
    if (type !== 9) return at + widths[type];
    const of = gguf.readUInt32LE(at);
    let behind = at + 12;
    for (let left = number(at + 4); left > 0; left--) behind = end(of, behind);
    return behind;
  };
  const found = [];
  let at = 24;
  for (let left = number(16); left > 0; left--) {
    const key = gguf.toString('utf8', at + 8, at + 8 + number(at));
    const value = at + 8 + number(at);
    const next = end(gguf.readUInt32LE(value), value + 4);
    if (wanted(key)) found.push(gguf.subarray(at, next));
    at = next;
  }
  return found;
}

/** Writes it; of `window` tokens. */
export function writeStretchableModel(file, window) {
  const folder = path.join(root, 'media/model');
  const [builtIn] = readdirSync(folder).filter((name) => name.endsWith('.gguf'));
  const tokenizer = valuesOf(readFileSync(path.join(folder, builtIn)), (key) => key.startsWith('tokenizer.'));
  const numbers = {
    context_length: window,
    embedding_length: 32,
    block_count: 1,
    feed_forward_length: 32,
    'attention.head_count': 2,
    'attention.head_count_kv': 1,
  };
  const values = [
    ...tokenizer,
    Buffer.concat([text('general.architecture'), u32(8), text('qwen3')]),
    Buffer.concat([text('general.name'), u32(8), text('Stretchable')]),
    Buffer.concat([text('qwen3.attention.layer_norm_rms_epsilon'), u32(6), f32(1e-6)]),
    ...Object.entries(numbers).map(([key, n]) => Buffer.concat([text(`qwen3.${key}`), u32(4), u32(n)])),
  ];
  const block = { attn_norm: [32], attn_q_norm: [16], attn_k_norm: [16], ffn_norm: [32] };
  Object.assign(block, { attn_q: [32, 32], attn_k: [32, 16], attn_v: [32, 16], attn_output: [32, 32] });
  Object.assign(block, { ffn_gate: [32, 32], ffn_up: [32, 32], ffn_down: [32, 32] });
  const tensors = { token_embd: [32, 49152], output_norm: [32] };
  for (const [name, dims] of Object.entries(block)) tensors[`blk.0.${name}`] = dims;
  let bytes = 0;
  const infos = Object.entries(tensors).map(([name, dims]) => {
    const at = bytes;
    bytes += 4 * dims.reduce((product, extent) => product * extent);
    return Buffer.concat([text(`${name}.weight`), u32(dims.length), ...dims.map(u64), u32(0), u64(at)]);
  });
  const header = Buffer.concat([
    Buffer.from('GGUF'),
    u32(3),
    u64(infos.length),
    u64(values.length),
    ...values,
    ...infos,
  ]);
  const padding = Buffer.alloc((32 - (header.length % 32)) % 32);
  writeFileSync(file, Buffer.concat([header, padding, Buffer.alloc(bytes)]));
}
