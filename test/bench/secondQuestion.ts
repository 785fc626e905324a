/**
 * How long a question on a repository that is read takes to its first token, beside what its own tokens take in the engine
 * alone: in turn, in one process, each with a question of its own and as many tokens.
 * `npx tsx test/bench/secondQuestion.ts [--repo django] [--tokens 8192] [--pairs 15]`; the built-in model on the CPU.
 */
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { makeCut, readRepository, removeCut } from '../eval/cut';
import { getSources } from '../eval/getSources';
import { seededRandom, shuffled } from '../eval/questions';
import { projectRoot } from '../eval/serverClient';
import { tokenCounter } from '../eval/tokenCounter';
import { machine, median } from './machine';

const { values } = parseArgs({
  options: {
    repo: { type: 'string', default: 'django' },
    tokens: { type: 'string', default: '8192' },
    pairs: { type: 'string', default: '15' },
  },
});
const builtIn = join(projectRoot, 'media/model/longview-135m-64k.Q5_0.gguf');

async function main() {
  const count = await tokenCounter(builtIn);
  const { rootOf, Session } = await import('../../server/answers/session');
  const { openModel } = await import('../../server/models/openModel');
  const tokens = Number(values.tokens);
  const root = getSources(values.repo);
  const files = readRepository(root).filter((file) => file.text.length < tokens);
  const cut = makeCut(root, shuffled(files, seededRandom(1)), tokens, count);
  const model = await openModel(builtIn);
  const { engine, format } = model;
  const session = await Session.create(model, [rootOf(cut.folder)], { maxAnswerTokens: 4 });
  console.log(`${machine()}\n${engine.device.name}`);
  const first = await session.prefill();
  console.log(`${cut.files.length} files of ${values.repo}, ${first.tokens} tokens\n`);

  // Never twice the same: the state of a question that was asked before would serve.
  let number = 100;
  const next = () => `Where is \`retry_delay_${number++}\` defined?`;
  const repository = await engine.createContext();
  await repository.extend(format.system(session.repository!.tokens));
  const alone = async () => {
    const fork = await repository.fork();
    const own = format.question(next());
    const { seconds, tokens: read } = await fork.extend(own, { priority: 'answer' });
    await fork.dispose();
    return { seconds, read };
  };
  const asked = async () => {
    const { stats } = await session.ask({ question: next() });
    return { seconds: stats.firstTokenSeconds, read: stats.promptTokens - stats.reusedTokens };
  };
  await alone();
  await asked();
  const pairs: { alone: number; asked: number }[] = [];
  for (let pair = 0; pair < Number(values.pairs); pair++) {
    // Each goes first in half of the pairs.
    const early = pair % 2 === 0 ? await alone() : await asked();
    const late = pair % 2 === 0 ? await asked() : await alone();
    if (early.read !== late.read)
      throw new Error(`The two read ${early.read} and ${late.read} tokens: they cannot be compared.`);
    const [own, question] = pair % 2 === 0 ? [early, late] : [late, early];
    pairs.push({ alone: own.seconds, asked: question.seconds });
    if (pair === 0) console.log(`${own.read} tokens a question`);
  }
  const ratios = pairs.map((pair) => pair.asked / pair.alone);
  const milliseconds = (of: (pair: (typeof pairs)[number]) => number) =>
    (median(pairs.map(of)) * 1000).toFixed(1);
  console.log(
    `own tokens alone ${milliseconds((pair) => pair.alone)} ms, question to first token ${milliseconds((pair) => pair.asked)} ms: ` +
      `${median(ratios).toFixed(3)} times (medians of ${pairs.length} pairs; ${Math.min(...ratios).toFixed(3)} to ${Math.max(...ratios).toFixed(3)})`,
  );
  await repository.dispose();
  await session.dispose();
  await model.dispose();
  removeCut(cut);
}

main().catch((error: unknown) => {
  console.error(error instanceof Error ? error.message : error);
  process.exitCode = 1;
});
