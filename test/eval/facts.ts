/** What the Python files of a repository define: the answer key of questions about them. */
import { execFileSync } from 'node:child_process';
import { join } from 'node:path';
import type { SourceFile } from './symbols';

export interface Fact {
  kind: 'class' | 'function' | 'constant';
  name: string;
  /** Defined in a class, not at the top of the file. */
  inClass: boolean;
  /** First sentence of the docstring. */
  doc?: string | null;
  /** As in the definition, annotations left out: `limit=5`. Null where it marks some as positional or by name only. */
  parameters?: string[] | null;
  defaults?: [name: string, value: string][];
  returns?: string | null;
  bases?: string[];
  /** Of a constant, where it is one literal: as the file writes it. */
  value?: string;
}

export interface FactFile extends SourceFile {
  facts: Fact[];
  /** Every name bound anywhere in the file, as often as it is. */
  bound: string[];
  /** Modules imported at the top, in order. */
  imports: string[];
}

/** By facts.py, of those files that Python can parse. Needs python3, as getSources.ts does. */
export function readFacts(folder: string, files: SourceFile[]): FactFile[] {
  const output = execFileSync('python3', [join(import.meta.dirname, 'facts.py'), folder], {
    input: files.map(({ path }) => path).join('\n'),
    maxBuffer: 1 << 30,
  });
  const texts = new Map(files.map(({ path, text }) => [path, text]));
  const found = JSON.parse(output.toString('utf8')) as Omit<FactFile, 'text'>[];
  return found.map((file) => ({ ...file, text: texts.get(file.path)! }));
}
