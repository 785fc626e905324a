/**
 * What an edit costs in a repository of some 30,000 tokens, and whether the answer knows of it: one constant in one file gets
 * another value, the question for it is asked, and the engine's counters say how many tokens were read for that.
 * `npx tsx test/eval/editCost.ts [--repo django] [--tokens 30000] [--edits 8] [--seed 1]`; the built-in model on the CPU, in
 * some four minutes. Ends with an error where more is read than the edited file, the question and 64 tokens.
 */
import { readFileSync, statSync, utimesSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { machine, median } from '../bench/machine';
import { makeCut, readRepository, removeCut } from './cut';
import { getSources } from './getSources';
import { seededRandom, shuffled, unambiguousDefinitions, type Question } from './questions';
import { judge } from './score';
import { projectRoot } from './serverClient';
import type { Definition, SourceFile } from './symbols';
import { tokenCounter } from './tokenCounter';

const { values } = parseArgs({
  options: {
    repo: { type: 'string', default: 'django' },
    tokens: { type: 'string', default: '30000' },
    edits: { type: 'string', default: '8' },
    seed: { type: 'string', default: '1' },
  },
});
const builtIn = join(projectRoot, 'media/model/longview-135m-64k.Q5_0.gguf');
const allowed = 64;

/** Another value of the same kind; undefined where there is no plain one. */
function otherValue(literal: string): string | undefined {
  if (/^\d+$/.test(literal)) return literal.replace(/\d/g, (digit) => String((Number(digit) % 9) + 1));
  const string = /^(['"])([\w /.-]+)\1$/.exec(literal);
  return string ? `${string[1]}${string[2]}_2${string[1]}` : undefined;
}

interface Edit {
  definition: Definition;
  to: string;
}

/** Runs `work` while the constant has its other value; the file and its times come back after. */
async function edited<T>(folder: string, { definition, to }: Edit, work: () => Promise<T>): Promise<T> {
  const file = join(folder, definition.path);
  const before = readFileSync(file);
  const { atime, mtime } = statSync(file);
  const lines = before.toString().split('\n');
  const at = definition.line - 1;
  const place = lines[at]!.lastIndexOf(definition.literal!);
  lines[at] = lines[at]!.slice(0, place) + to + lines[at]!.slice(place + definition.literal!.length);
  writeFileSync(file, lines.join('\n'));
  try {
    return await work();
  } finally {
    writeFileSync(file, before);
    utimesSync(file, atime, mtime);
  }
}

/** Edits past a tenth are packed afresh in the background, which is not measured here. About four characters are a token. */
function isSmall(file: SourceFile, tokens: number): boolean {
  return file.text.length / 4 < 0.07 * tokens;
}

/** Edits of constants whose names are bound nowhere else in `files`. */
function editsOf(file: SourceFile, files: SourceFile[]): Edit[] {
  return unambiguousDefinitions(files)
    .filter(({ path }) => path === file.path)
    .flatMap((definition) => {
      const to = definition.literal && otherValue(definition.literal);
      return to ? [{ definition, to }] : [];
    });
}

/** The package's files in a random order, some with a constant to edit first: plain ones are scarce. */
function withConstants(
  files: SourceFile[],
  tokens: number,
  count: number,
  random: () => number,
): SourceFile[] {
  const order = shuffled(
    files.filter((file) => file.text.trim() !== '' && file.text.length / 4 < tokens / 3),
    random,
  );
  const first = order
    .filter((file) => isSmall(file, tokens) && editsOf(file, [file]).length > 0)
    .slice(0, 2 * count);
  return [...first, ...order.filter((file) => !first.includes(file))];
}

async function main() {
  const count = await tokenCounter(builtIn);
  const { rootOf, Session } = await import('../../server/answers/session');
  const { openModel } = await import('../../server/models/openModel');
  const tokens = Number(values.tokens);
  const random = seededRandom(Number(values.seed));
  const root = getSources(values.repo);
  const wanted = Number(values.edits);
  const cut = makeCut(root, withConstants(readRepository(root), tokens, wanted, random), tokens, count);
  // One a file: what is read for one edit must not serve the next.
  const edits = cut.files
    .filter((file) => isSmall(file, tokens))
    .flatMap((file) => shuffled(editsOf(file, cut.files), random).slice(0, 1))
    .slice(0, wanted);
  if (edits.length === 0) throw new Error('There is no constant to edit in these files.');

  const model = await openModel(builtIn);
  const open = () => Session.create(model, [rootOf(cut.folder)], { rebasesInBackground: true });
  console.log(`${machine()}\n${model.engine.device.name}`);
  const whole = await open();
  const { tokens: size, seconds } = await whole.prefill();
  console.log(
    `${cut.files.length} files of ${values.repo}, ${size} tokens, read in ${seconds.toFixed(1)} s\n`,
  );
  await whole.dispose();
  const read = async () => (await model.engine.counters()).prefilledTokens;
  const rows: { extra: number; before: boolean; after: boolean; seconds: number }[] = [];
  console.log('| constant | edited file | question | read | first token, s | before | after |');
  console.log('|---|---|---|---|---|---|---|');
  for (const edit of edits) {
    const { name, path } = edit.definition;
    const text = `What is the value of \`${name}\`?`;
    const right = (answer: string, literal: string) => {
      const question: Question = { kind: 'value', text, name, definition: { ...edit.definition, literal } };
      return judge(question, answer, [], cut.files).right;
    };
    // A session of its own has the files as they were; the pages of those before it serve.
    const session = await open();
    await session.prefill();
    const asked = await read();
    const first = await session.ask({ question: text });
    const question = (await read()) - asked;
    await edited(cut.folder, edit, async () => {
      const start = await read();
      const { answer, stats } = await session.ask({ question: text });
      const all = (await read()) - start;
      const file = (await session.context()).files.find((packed) => packed.path === path)!.tokens;
      const row = {
        extra: all - file - question,
        before: right(first.answer, edit.definition.literal!),
        after: right(answer, edit.to),
        seconds: stats.firstTokenSeconds,
      };
      rows.push(row);
      const change = `\`${name}\`: ${edit.definition.literal} → ${edit.to}`;
      const [before, after] = [row.before, row.after].map((ok) => (ok ? 'right' : 'wrong'));
      console.log(
        `| ${change} | ${file} | ${question} | ${all} | ${row.seconds.toFixed(2)} | ${before} | ${after} |`,
      );
    });
    await session.dispose();
  }
  await model.dispose();
  removeCut(cut);
  const most = Math.max(...rows.map(({ extra }) => extra));
  const right = (when: 'before' | 'after') => rows.filter((row) => row[when]).length;
  console.log(
    `\n${rows.length} edits: at most ${most} tokens read beside the edited file and the question; right before the edit ` +
      `${right('before')}, after it ${right('after')}; first token in ${median(rows.map(({ seconds }) => seconds)).toFixed(2)} s (median)`,
  );
  if (most > allowed)
    throw new Error(`More than ${allowed} tokens were read beside the edited file and the question.`);
  if (right('after') === 0) throw new Error('No answer knows of its edit.');
}

main().catch((error: unknown) => {
  console.error(error instanceof Error ? error.message : error);
  process.exitCode = 1;
});
