/** llama.cpp as npm publishes it, for benches only: installed into the cache folder when first needed. */
import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { cacheFolder } from '../eval/cacheFolder';

export const llamaCppVersion = '3.22.1';

/** The folder that holds node_modules/node-llama-cpp. */
export function installLlamaCpp(): string {
  const folder = cacheFolder(`node-llama-cpp-${llamaCppVersion}`);
  if (existsSync(join(folder, 'node_modules', 'node-llama-cpp'))) return folder;
  writeFileSync(join(folder, 'package.json'), '{ "private": true }\n');
  // Without optional packages npm leaves out the builds for GPUs (hundreds of megabytes); the CPU's is named here.
  const packages = [`node-llama-cpp@${llamaCppVersion}`, `@node-llama-cpp/linux-x64@${llamaCppVersion}`];
  const flags = ['--no-audit', '--no-fund', '--omit=optional', '--ignore-scripts'];
  execFileSync('npm', ['install', ...flags, ...packages], { cwd: folder, stdio: ['ignore', 2, 2] });
  return folder;
}

/** The part of node-llama-cpp that the benches use. */
export interface LlamaCpp {
  systemInfo: string;
  llamaCppRelease: { release: string };
  loadModel(options: { modelPath: string; gpuLayers: number; useMmap: boolean }): Promise<LlamaModel>;
}
export interface LlamaModel {
  fileInfo: { metadata: Record<string, Record<string, unknown>> };
  tokenize(text: string, specialTokens?: boolean): number[];
  detokenize(tokens: number[]): string;
  createContext(options: {
    contextSize: number;
    batchSize: number;
    flashAttention: boolean;
    threads: number;
  }): Promise<{ getSequence(options: { checkpoints: { max: number } }): LlamaSequence }>;
}
export interface LlamaSequence {
  nextTokenIndex: number;
  eraseContextTokenRanges(ranges: { start: number; end: number }[]): Promise<void>;
  evaluate(
    tokens: number[],
    options: { temperature: number; yieldEogToken: boolean },
  ): AsyncGenerator<number, void, void>;
}

export async function loadLlamaCpp(threads: number): Promise<LlamaCpp> {
  const entry = join(installLlamaCpp(), 'node_modules', 'node-llama-cpp', 'dist', 'index.js');
  const { getLlama } = (await import(pathToFileURL(entry).href)) as {
    getLlama: (options: object) => Promise<LlamaCpp>;
  };
  return getLlama({ gpu: false, build: 'never', skipDownload: true, maxThreads: threads, logLevel: 'error' });
}

/** The build for this processor that llama.cpp chose among those in the package: `sapphirerapids`, `zen4`, ... */
export function loadedVariant(): string {
  return /libggml-cpu-(\w+)\.so/.exec(readFileSync('/proc/self/maps', 'utf8'))?.[1] ?? 'unknown';
}
