/** Counts tokens with the model's own vocabulary, to size a workspace before the product packs it. */
import { join } from 'node:path';
import { projectRoot } from './serverClient';

export async function tokenCounter(model: string): Promise<(text: string) => number> {
  process.env.LONGVIEW_ADDON ??= join(projectRoot, 'dist', 'longview.node');
  const { readModelMetadata } = await import('../../server/engine/nativeEngine');
  const { createTokenizer } = await import('../../server/tokenizer/tokenizer');
  const { vocabularyFromGguf } = await import('../../server/tokenizer/vocabulary');
  const tokenizer = createTokenizer(vocabularyFromGguf(readModelMetadata(model)));
  return (text) => tokenizer.encode(text).length;
}
