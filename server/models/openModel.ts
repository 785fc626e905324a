/** A model ready for questions: its engine, its tokenizer and its chat format. */
import type { Engine, EngineOptions, OpeningOptions } from '../engine/engine';
import { openNativeEngine, readModelMetadata } from '../engine/nativeEngine';
import { createChatFormat, type ChatFormat } from '../prompt/template';
import { createTokenizer } from '../tokenizer/tokenizer';
import { vocabularyFromTokenizerJson } from '../tokenizer/tokenizerJson';
import type { Tokenizer } from '../tokenizer/types';
import { vocabularyFromGguf } from '../tokenizer/vocabulary';

export interface OpenModel {
  engine: Engine;
  tokenizer: Tokenizer;
  format: ChatFormat;
  /** What loading the weights took. */
  loadSeconds: number;
  dispose(): Promise<void>;
}

/**
 * `makeRoom` is called when the file is known to be a model, before its weights take memory.
 * Throws LongviewError with a sentence for the user: no file, damaged, unsupported, too little memory; or `cancelled`.
 */
export async function openModel(
  file: string,
  options: EngineOptions = {},
  { makeRoom, ...opening }: OpeningOptions & { makeRoom?: () => Promise<void> } = {},
): Promise<OpenModel> {
  const metadata = readModelMetadata(file);
  const tokenizer = createTokenizer(
    metadata.format === 'gguf'
      ? vocabularyFromGguf(metadata)
      : vocabularyFromTokenizerJson(metadata.folder ?? file),
  );
  try {
    const format = createChatFormat(tokenizer);
    await makeRoom?.();
    const start = performance.now();
    const engine = await openNativeEngine(file, options, opening);
    return {
      engine,
      tokenizer,
      format,
      loadSeconds: (performance.now() - start) / 1000,
      async dispose() {
        await engine.dispose();
        tokenizer.dispose();
      },
    };
  } catch (error) {
    tokenizer.dispose();
    throw error;
  }
}
