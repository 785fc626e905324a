/** What tests of packing share: the tokens of the built-in model, and files to pack. */
import { utimesSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { readModelMetadata } from '../../../server/engine/nativeEngine';
import { createTokenizer } from '../../../server/tokenizer/tokenizer';
import { vocabularyFromGguf } from '../../../server/tokenizer/vocabulary';
import { builtInModel } from '../reference';

export const tokenizer = createTokenizer(vocabularyFromGguf(readModelMetadata(builtInModel)));

export function edit(folder: string, name: string, text: string) {
  writeFileSync(path.join(folder, name), text);
  utimesSync(path.join(folder, name), 1_800_000_000, 1_800_000_000);
}

export const long = (name: string) => `# ${name}\n${'value = compute(value)\n'.repeat(120)}`;
