/** Long-context models that Longview reads and its makers offer for download. Sizes and hashes come from the hub itself. */
import type { CatalogEntry } from '../protocol';

function entry(
  repository: string,
  file: string,
  rest: Omit<CatalogEntry, 'id' | 'repository' | 'file'>,
): CatalogEntry {
  return { id: `${repository}/${file}`, repository, file, ...rest };
}

/** `bytes` is for the list, and may be rounded; the download trusts the hub's answer alone. */
export const catalog: readonly CatalogEntry[] = [
  entry('Qwen/Qwen2.5-Coder-1.5B-Instruct-GGUF', 'qwen2.5-coder-1.5b-instruct-q4_k_m.gguf', {
    name: 'Qwen2.5 Coder 1.5B',
    bytes: 1_117_320_768,
    licence: 'Apache-2.0',
    window: 32_768,
    goodFor: 'Explains small repositories',
    needs: '2 GB of memory; a GPU beyond 10K tokens',
  }),
  entry('Qwen/Qwen2.5-Coder-7B-Instruct-GGUF', 'qwen2.5-coder-7b-instruct-q4_k_m.gguf', {
    name: 'Qwen2.5 Coder 7B',
    bytes: 4_683_073_536,
    licence: 'Apache-2.0',
    window: 32_768,
    goodFor: 'Reasons about code; small repositories',
    needs: '8 GB of GPU memory',
  }),
  entry('bartowski/Qwen2.5-7B-Instruct-1M-GGUF', 'Qwen2.5-7B-Instruct-1M-Q4_K_M.gguf', {
    name: 'Qwen2.5 7B, 1M window',
    bytes: 4_683_073_952,
    licence: 'Apache-2.0',
    window: 262_144,
    goodFor: 'Large repositories',
    needs: '12 GB of GPU memory (100K tokens), 24 GB (250K)',
  }),
  entry('unsloth/Qwen3-4B-Instruct-2507-GGUF', 'Qwen3-4B-Instruct-2507-Q4_K_M.gguf', {
    name: 'Qwen3 4B Instruct 2507',
    bytes: 2_497_281_120,
    licence: 'Apache-2.0',
    window: 262_144,
    goodFor: 'Good for its size',
    needs: '8 GB of GPU memory (30K tokens), 24 GB (130K)',
  }),
  entry('ggml-org/gemma-3-4b-it-GGUF', 'gemma-3-4b-it-Q4_K_M.gguf', {
    name: 'Gemma 3 4B',
    bytes: 2_490_000_000,
    licence: 'Gemma',
    window: 131_072,
    goodFor: 'Explains in many languages',
    needs: '8 GB of GPU memory (50K tokens), 16 GB (130K)',
  }),
  entry('unsloth/Qwen3.5-4B-GGUF', 'Qwen3.5-4B-Q4_K_M.gguf', {
    name: 'Qwen3.5 4B',
    bytes: 2_740_000_000,
    licence: 'Apache-2.0',
    window: 262_144,
    goodFor: 'Good on small GPUs',
    needs: '8 GB of GPU memory (100K tokens), 16 GB (250K)',
  }),
  entry('unsloth/granite-4.1-8b-GGUF', 'granite-4.1-8b-Q4_K_M.gguf', {
    name: 'Granite 4.1 8B',
    bytes: 5_300_000_000,
    licence: 'Apache-2.0',
    window: 131_072,
    goodFor: 'Plain and dependable',
    needs: '12 GB of GPU memory (50K tokens), 24 GB (130K)',
  }),
  entry('ggml-org/gemma-3-12b-it-GGUF', 'gemma-3-12b-it-Q4_K_M.gguf', {
    name: 'Gemma 3 12B',
    bytes: 7_300_000_000,
    licence: 'Gemma',
    window: 131_072,
    goodFor: 'Explains in many languages',
    needs: '24 GB of GPU memory (60K tokens), 48 GB (130K)',
  }),
  entry('unsloth/Qwen3.5-9B-GGUF', 'Qwen3.5-9B-Q4_K_M.gguf', {
    name: 'Qwen3.5 9B',
    bytes: 5_680_000_000,
    licence: 'Apache-2.0',
    window: 262_144,
    goodFor: 'Large repositories',
    needs: '8 GB of GPU memory (50K tokens), 16 GB (250K)',
  }),
  entry('unsloth/Qwen3-Coder-30B-A3B-Instruct-GGUF', 'Qwen3-Coder-30B-A3B-Instruct-Q4_K_M.gguf', {
    name: 'Qwen3 Coder 30B-A3B',
    bytes: 18_556_689_568,
    licence: 'Apache-2.0',
    window: 262_144,
    goodFor: 'Reasons about code',
    needs: '24 GB of GPU memory (60K tokens), 48 GB (250K)',
  }),
  entry('ggml-org/gpt-oss-20b-GGUF', 'gpt-oss-20b-mxfp4.gguf', {
    name: 'gpt-oss 20B',
    bytes: 12_110_000_000,
    licence: 'Apache-2.0',
    window: 131_072,
    goodFor: 'Reasons about code, fast',
    needs: '16 GB of GPU memory (60K tokens), 24 GB (130K)',
  }),
  entry('unsloth/Qwen3.6-35B-A3B-GGUF', 'Qwen3.6-35B-A3B-UD-Q4_K_M.gguf', {
    name: 'Qwen3.6 35B-A3B',
    bytes: 22_100_000_000,
    licence: 'Apache-2.0',
    window: 262_144,
    goodFor: 'Large repositories, fast',
    needs: '24 GB of GPU memory (40K tokens), 32 GB (250K)',
  }),
  entry('unsloth/Qwen3.8-27B-GGUF', 'Qwen3.8-27B-Q4_K_M.gguf', {
    name: 'Qwen3.8 27B',
    bytes: 17_106_773_984,
    licence: 'Apache-2.0',
    window: 262_144,
    goodFor: 'Reasons best about code',
    needs: '24 GB of GPU memory (90K tokens, 250K in 4 bits)',
  }),
];
