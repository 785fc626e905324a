/** `longview ask [--model M] [--repo D] [--json] "question" ...`: progress to stderr, the answer to stdout; exit 0, 1 or 2. */
import { existsSync } from 'node:fs';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { Session } from './answers/session';
import { openNativeEngine, readModelMetadata } from './engine/nativeEngine';
import { LongviewError } from './errors';
import { createTokenizer } from './tokenizer/tokenizer';
import { vocabularyFromGguf } from './tokenizer/vocabulary';

const usage =
  'Usage: longview ask [--model FILE] [--repo FOLDER] [--threads N] [--max-tokens N] [--json] "question" ["another question" ...]';

function builtInModel(): string {
  return path.join(__dirname, '..', 'media', 'model', 'longview-135m-64k.Q5_0.gguf');
}

function whole(text: string | undefined, option: string): number | undefined {
  if (text === undefined) return undefined;
  if (!/^\d{1,6}$/.test(text))
    throw new LongviewError('invalid_argument', `--${option} needs a whole number.`);
  return Number(text);
}

async function ask(args: string[], signal: AbortSignal): Promise<number> {
  const { values, positionals } = parseArgs({
    args,
    allowPositionals: true,
    options: {
      model: { type: 'string' },
      repo: { type: 'string' },
      threads: { type: 'string' },
      'max-tokens': { type: 'string' },
      json: { type: 'boolean' },
    },
  });
  if (positionals.length === 0 || positionals.some((question) => question.trim() === '')) {
    console.error(usage);
    return 2;
  }
  // npm runs scripts in the package's folder; people mean the one they stand in.
  const here = process.env.INIT_CWD ?? process.cwd();
  const model = values.model
    ? path.resolve(here, values.model)
    : (process.env.LONGVIEW_MODEL ?? builtInModel());
  if (!existsSync(model))
    throw new LongviewError('no_model', `There is no model at ${model}. Choose a .gguf file with --model.`);
  const engine = await openNativeEngine(model, { threads: whole(values.threads, 'threads') });
  try {
    const tokenizer = createTokenizer(vocabularyFromGguf(readModelMetadata(model)));
    const session = await Session.create(engine, tokenizer, path.resolve(here, values.repo ?? '.'), {
      maxAnswerTokens: whole(values['max-tokens'], 'max-tokens'),
      signal,
    });
    const { files, skipped } = session.repository;
    const left = skipped.filter((file) => file.reason === 'over-budget');
    console.error(
      `${files.length} of ${files.length + left.length} files · ${engine.model.name} · ${engine.device.name}`,
    );
    for (const file of left) console.error(`  left out, beyond the window: ${file.path} (${file.detail})`);
    let shown = 0;
    for (const question of positionals) {
      const result = await session.ask(question, {
        signal,
        text: values.json ? undefined : (text) => process.stdout.write(text),
        progress: ({ done, total, tokensPerSecond }) => {
          if (performance.now() - shown < 1000 && done < total) return;
          shown = performance.now();
          const eta = Math.ceil((total - done) / Math.max(tokensPerSecond, 1));
          console.error(
            `reading ${done} of ${total} tokens, ${Math.round(tokensPerSecond)} tokens/s, ${eta} s left`,
          );
        },
      });
      if (values.json) {
        const { answer, citations, stats } = result;
        console.log(JSON.stringify({ answer, citations, stats }));
        continue;
      }
      process.stdout.write('\n');
      for (const { path: file, span } of result.citations)
        console.log(`  ${file}${span ? `:${span.startLine}` : ''}`);
    }
    return 0;
  } finally {
    await engine.dispose();
  }
}

async function main(): Promise<number> {
  const stop = new AbortController();
  process.once('SIGINT', () => stop.abort());
  const [command, ...args] = process.argv.slice(2);
  try {
    if (command === 'ask') return await ask(args, stop.signal);
    console.error(usage);
    return 2;
  } catch (error) {
    console.error(error instanceof Error ? error.message : String(error));
    return (error as { code?: string }).code?.startsWith('ERR_PARSE_ARGS') ? 2 : 1;
  }
}

void main().then((code) => (process.exitCode = code));
