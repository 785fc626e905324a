/** How much arithmetic and memory traffic a model needs: what speeds are measured against. */
import { statSync } from 'node:fs';
import type { LlamaModel } from './llamaCppPackage';

export interface Geometry {
  layers: number;
  hidden: number;
  ffn: number;
  heads: number;
  kvHeads: number;
  headDim: number;
  vocabulary: number;
  /** Of the model file: what a decoded token reads of the weights, near enough (the tied embedding is the output). */
  weightBytes: number;
}

export function geometryOf(model: LlamaModel, path: string): Geometry {
  const general = model.fileInfo.metadata['general']!;
  const values = model.fileInfo.metadata[String(general['architecture'])]!;
  const attention = values['attention'] as Record<string, number>;
  const tokenizer = model.fileInfo.metadata['tokenizer'] as { ggml: { tokens: unknown[] } };
  const hidden = Number(values['embedding_length']);
  const heads = Number(attention['head_count']);
  return {
    layers: Number(values['block_count']),
    hidden,
    ffn: Number(values['feed_forward_length']),
    heads,
    kvHeads: Number(attention['head_count_kv'] ?? heads),
    headDim: Number(attention['key_length'] ?? hidden / heads),
    vocabulary: tokenizer.ggml.tokens.length,
    weightBytes: statSync(path).size,
  };
}

/** Parameters of the matrices that every token goes through, without the output. */
function matrixParameters(g: Geometry): number {
  const attention = g.hidden * g.headDim * (2 * g.heads + 2 * g.kvHeads);
  return g.layers * (attention + 3 * g.hidden * g.ffn);
}

/** Dense causal pre-fill of `tokens`, and the output of the last one. */
export function prefillFlop(g: Geometry, tokens: number): number {
  const pairs = (tokens * (tokens + 1)) / 2;
  const attention = 4 * g.layers * g.heads * g.headDim * pairs;
  return 2 * matrixParameters(g) * tokens + attention + 2 * g.vocabulary * g.hidden;
}

/** Memory read by one decoded token behind `context` tokens with 16-bit KV. */
export function decodeBytes(g: Geometry, context: number): number {
  return g.weightBytes + 2 * g.layers * g.kvHeads * g.headDim * 2 * context;
}
