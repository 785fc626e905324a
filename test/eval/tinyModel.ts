/** A model that is made in a moment, for what does not depend on what a model knows. */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { writeSafetensors } from './safetensors';

const hidden = 32;
export const tinyVocabulary = 8;
export const tinyWindow = 256;

/** A model folder with one layer of zeros, so that every token is as likely as any other. `embedding`: [vocabulary, 32] instead. */
export function writeTinyModel(
  path: string,
  {
    vocabulary = tinyVocabulary,
    window = tinyWindow,
    embedding,
  }: { vocabulary?: number; window?: number; embedding?: Float32Array } = {},
): void {
  const shapes: Record<string, number[]> = { embed_tokens: [vocabulary, hidden], norm: [hidden] };
  for (const norm of ['input_layernorm', 'post_attention_layernorm']) shapes[`layers.0.${norm}`] = [hidden];
  for (const matrix of [
    'self_attn.q',
    'self_attn.k',
    'self_attn.v',
    'self_attn.o',
    'mlp.gate',
    'mlp.up',
    'mlp.down',
  ])
    shapes[`layers.0.${matrix}_proj`] = [hidden, hidden];
  const tensors = Object.entries(shapes).map(([name, shape]) => {
    const zeros = new Float32Array(shape.reduce((product, x) => product * x, 1));
    const data = name === 'embed_tokens' && embedding ? embedding : zeros;
    return [`model.${name}.weight`, { dtype: 'F32', shape, data }] as const;
  });
  mkdirSync(path);
  writeSafetensors(join(path, 'model.safetensors'), Object.fromEntries(tensors));
  const sizes = {
    num_hidden_layers: 1,
    hidden_size: hidden,
    intermediate_size: hidden,
    num_attention_heads: 2,
    vocab_size: vocabulary,
    max_position_embeddings: window,
  };
  writeFileSync(
    join(path, 'config.json'),
    JSON.stringify({ model_type: 'llama', ...sizes, tie_word_embeddings: true }),
  );
}
