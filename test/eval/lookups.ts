/**
 * Right answers on real code: `npm run eval:lookups -- --repo flask --repo pytest --tokens 8192`.
 * Asks the real server where symbols are defined, what constants are, and about names that do not exist.
 */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import type { AskStats, Settings, Source } from '../../server/protocol';
import { askAll } from './askAll';
import { groupFiles, makeCut, readRepository, removeCut } from './cut';
import { getSources } from './getSources';
import { makeQuestions, seededRandom, type Question } from './questions';
import { judge, type Verdict } from './score';
import { projectRoot } from './serverClient';
import { tokenCounter } from './tokenCounter';

const usage = `npm run eval:lookups -- [options]
  --repo D       folder, or flask / pytest (downloaded from PyPI); may be repeated (default: flask and pytest)
  --tokens N     size of a workspace in tokens (default 8192)
  --questions N  questions in all, a third of each kind (default 60)
  --cuts N       workspaces a repository at most (default 20)
  --model M      model file or folder (default: the built-in model)
  --threads N    default: all
  --device D     auto, cuda or cpu (default)
  --mode M       how the repository is read: auto (default), adaptive, minference or dense
  --target T     fast, balanced (default) or exact
  --seed N       which files and symbols are picked (default 1)
  --json F       writes every question, answer and verdict
  --verbose      prints every wrong answer`;

interface Asked {
  repository: string;
  cut: number;
  question: Question;
  answer: string;
  verdict: Verdict;
  /** Absent where the device cannot tell. */
  sources?: Source[];
  stats: AskStats;
}

/** The kinds that share the questions; names that are nearly there are asked besides and reported apart. */
const kinds = ['where', 'value', 'missing'] as const;
const titles = {
  where: 'where: right path',
  value: 'value: right literal',
  missing: "no such name, another package's: says can't find",
  away: "no such name, but this package's from a file left out: says can't find",
  near: "no such name, but made of two that exist: says can't find",
};

function readArguments() {
  const string = { type: 'string' } as const;
  const { values } = parseArgs({
    options: {
      repo: { type: 'string', multiple: true },
      tokens: { ...string, default: '8192' },
      questions: { ...string, default: '60' },
      cuts: { ...string, default: '20' },
      model: string,
      threads: { ...string, default: '0' },
      device: { ...string, default: 'cpu' },
      mode: { ...string, default: 'auto' },
      target: { ...string, default: 'balanced' },
      seed: { ...string, default: '1' },
      json: string,
      verbose: { type: 'boolean', default: false },
      help: { type: 'boolean', default: false },
    },
  });
  const count = (name: 'tokens' | 'questions' | 'cuts' | 'threads' | 'seed') => {
    const value = Number(values[name]);
    if (!Number.isSafeInteger(value) || value < 0) throw new Error(`--${name} takes a number. ${usage}`);
    return value;
  };
  const settings: Partial<Settings> = {
    modelPath: values.model ?? '',
    threads: count('threads'),
    device: values.device as Settings['device'],
    prefillMode: values.mode as Settings['prefillMode'],
    prefillTarget: values.target as Settings['prefillTarget'],
  };
  return {
    ...values,
    settings,
    repositories: (values.repo ?? ['flask', 'pytest']).map(getSources),
    /** Where names come from that a repository does not have. */
    foreign: ['flask', 'pytest'].map(getSources),
    tokens: count('tokens'),
    questions: count('questions'),
    cuts: count('cuts'),
    seed: count('seed'),
  };
}

async function main() {
  const options = readArguments();
  if (options.help) return console.log(usage);
  const { model, settings } = options;
  const count = await tokenCounter(model ?? join(projectRoot, 'media/model/longview-135m-64k.Q5_0.gguf'));
  const random = seededRandom(options.seed);
  const asked: Asked[] = [];
  const share = Math.ceil(options.questions / kinds.length / options.repositories.length);
  for (const repository of options.repositories) {
    const mine: Asked[] = [];
    const files = readRepository(repository);
    const foreign = options.foreign.filter((other) => other !== repository).flatMap(readRepository);
    // About 3.9 characters of code are a token; makeCut() then counts exactly.
    const groups = groupFiles(files, options.tokens * 3.9, random).slice(0, options.cuts);
    for (const [number, group] of groups.entries()) {
      const open = (kind: Question['kind']) => share - mine.filter((a) => a.question.kind === kind).length;
      if (kinds.every((kind) => open(kind) <= 0)) break;
      const cut = makeCut(repository, group, options.tokens, count);
      // Questions of every kind in every workspace; constants are scarce, so all of them are asked.
      const some = Math.ceil(share / 3);
      const limits = {
        where: Math.min(some, open('where')),
        value: open('value'),
        missing: Math.min(some, open('missing')),
        away: Math.min(some, open('away')),
        near: Math.min(some, open('near')),
      };
      const away = files.filter((file) => !cut.files.some((taken) => taken.path === file.path));
      const questions = makeQuestions(cut.files, { away, foreign }, limits, random);
      if (questions.length === 0) {
        removeCut(cut);
        continue;
      }
      const texts = questions.map((question) => question.text);
      const answers = await askAll(cut.folder, texts, settings);
      for (const [index, question] of questions.entries()) {
        const { answer, citations, sources, stats } = answers[index]!;
        const verdict = judge(question, answer, citations, cut.files);
        mine.push({ repository, cut: number, question, answer, verdict, sources, stats });
        if (options.verbose && (!verdict.right || verdict.wrongLinks.length > 0))
          console.log(explain(mine.at(-1)!));
      }
      const { stats } = answers[0]!;
      const size = `${stats.files} of ${stats.files + stats.skipped} files, ${stats.promptTokens} tokens`;
      process.stderr.write(
        `${repository}, workspace ${number + 1}: ${size}, ${questions.length} questions\n`,
      );
      removeCut(cut);
      if (options.json) writeFileSync(options.json, JSON.stringify([...asked, ...mine], null, 1));
    }
    asked.push(...mine);
  }
  if (asked.length === 0)
    throw new Error('No question could be made: the workspaces hold no unambiguous symbols.');
  report(asked, options.tokens);
}

function explain({ question, answer, verdict }: Asked): string {
  const faults = [verdict.fault, ...verdict.wrongLinks].filter((fault) => fault !== undefined);
  return `- ${question.text}\n    ${answer.trim().replaceAll('\n', '\n    ')}\n    ${faults.join('; ')}`;
}

function report(asked: Asked[], tokens: number): void {
  const percent = (part: number, of: number) => (of === 0 ? '–' : `${((100 * part) / of).toFixed(1)} %`);
  console.log(`\n| ${tokens} tokens | right | of | share |\n|---|---|---|---|`);
  for (const kind of [...kinds, 'away', 'near'] as const) {
    const those = asked.filter((a) => a.question.kind === kind);
    const right = those.filter((a) => a.verdict.right).length;
    console.log(`| ${titles[kind]} | ${right} | ${those.length} | ${percent(right, those.length)} |`);
  }
  const existing = asked.filter((a) => a.question.definition);
  const refused = existing.filter((a) => a.verdict.refused).length;
  console.log(
    `| says can't find of what exists | ${refused} | ${existing.length} | ${percent(refused, existing.length)} |`,
  );
  const links = asked.reduce((sum, a) => sum + a.verdict.links, 0);
  const good = links - asked.reduce((sum, a) => sum + a.verdict.wrongLinks.length, 0);
  console.log(`| links that point at their symbol | ${good} | ${links} | ${percent(good, links)} |`);
  const looked = existing.filter((a) => a.verdict.right && a.sources);
  const found = looked.filter((a) => a.sources![0]?.path === a.question.definition!.path);
  console.log(
    `| of right answers: first source is the file of the definition | ${found.length} | ${looked.length} | ${percent(found.length, looked.length)} |`,
  );
  const placed = found.filter((a) => a.sources![0]!.span);
  const held = placed.filter(({ sources, question }) => {
    const { startLine, endLine } = sources![0]!.span!;
    const { line } = question.definition!;
    return startLine <= line && line <= endLine;
  }).length;
  console.log(
    `| of these with lines: they hold the definition | ${held} | ${placed.length} | ${percent(held, placed.length)} |`,
  );

  const first = asked.filter((a) => a.stats.reusedTokens === 0);
  const later = asked.filter((a) => a.stats.reusedTokens > 0);
  const median = (list: Asked[], of: (stats: AskStats) => number) =>
    [...list.map((a) => of(a.stats))].sort((a, b) => a - b)[Math.floor(list.length / 2)] ?? NaN;
  const sizes = first.map((a) => a.stats.promptTokens);
  const wait = (list: Asked[]) => median(list, (stats) => stats.firstTokenSeconds).toFixed(2);
  const own = median(later, (stats) => stats.promptTokens - stats.reusedTokens);
  console.log(
    `\n${asked.length} questions through the server in ${first.length} workspaces of ` +
      `${Math.min(...sizes)} to ${Math.max(...sizes)} tokens. Median time to the first token: ` +
      `${wait(first)} s for the first question, ${wait(later)} s for later ones, which pre-fill ${own} tokens. ` +
      `${asked[0]!.stats.model}, ${asked[0]!.stats.device}, median density ${median(first, (stats) => stats.density ?? 1).toFixed(3)}.`,
  );
}

main().catch((error: unknown) => {
  console.error(error instanceof Error ? error.message : error);
  process.exitCode = 1;
});
