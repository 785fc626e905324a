/**
 * Whether memory grows with questions: new chats, chats that go on, answers that are stopped, and explanations, on one reading
 * in a KV state with so little room beside it that it is full soon. Ends with an error where more than a twentieth came on top after the
 * first quarter.
 * `npx tsx test/bench/soak.ts [--repo D] [--tokens 8192] [--questions 200]`; the built-in model on the CPU, in some minutes.
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { readRepository } from '../eval/cut';
import { seededRandom, shuffled, unambiguousDefinitions } from '../eval/questions';
import { projectRoot } from '../eval/serverClient';
import { machine } from './machine';

const { values } = parseArgs({
  options: {
    repo: { type: 'string', default: join(projectRoot, 'server/prompt') },
    /** That the KV state has room for. */
    tokens: { type: 'string', default: '8192' },
    questions: { type: 'string', default: '200' },
  },
});
const builtIn = join(projectRoot, 'media/model/longview-135m-64k.Q5_0.gguf');
/** Of the built-in model in bf16. */
const tokenBytes = 30 * 2 * 3 * 64 * 2;
process.env.LONGVIEW_ADDON ??= join(projectRoot, 'dist', 'longview.node');

function residentBytes(): number {
  const line = /VmRSS:\s+(\d+) kB/.exec(readFileSync('/proc/self/status', 'utf8'));
  return Number(line?.[1]) * 1024;
}

async function main() {
  const { rootOf, Session } = await import('../../server/answers/session');
  const { openModel } = await import('../../server/models/openModel');
  const { LongviewError } = await import('../../server/errors');
  const questions = Number(values.questions);
  const random = seededRandom(1);
  const names = shuffled(unambiguousDefinitions(readRepository(values.repo)), random).map(({ name }) => name);
  const model = await openModel(builtIn, { kvBudgetBytes: Number(values.tokens) * tokenBytes * 1.05 });
  const session = await Session.create(model, [rootOf(values.repo)], { maxAnswerTokens: 32 });
  const { tokens } = await session.prefill();
  console.log(`${machine()}\n${tokens} tokens read, room for ${model.engine.window}`);

  const chats: string[] = [];
  const counts = { begun: 0, continued: 0, stopped: 0, explained: 0 };
  let early = 0;
  for (let number = 1; number <= questions; number++) {
    const name = names[number % names.length]!;
    const question = `Where is \`${name}\` defined? (${number})`;
    if (number % 10 === 0) {
      await session.aside(`What does \`${name}\` do? (${number})`, 32);
      counts.explained++;
    } else if (number % 3 === 0) {
      const stop = new AbortController();
      const whileReading = random() < 0.5;
      const stopped = session.ask({
        question,
        signal: stop.signal,
        onPhase: (phase) => whileReading && phase === 'reading' && setTimeout(() => stop.abort(), 20),
        onText: () => stop.abort(),
      });
      await stopped.catch((error: unknown) => {
        if (!(error instanceof LongviewError && error.code === 'cancelled')) throw error;
        counts.stopped++;
      });
    } else {
      const known = random() < 0.5 ? chats[Math.floor(random() * chats.length)] : undefined;
      const { conversationId } = await session.ask({ question, conversationId: known });
      counts[known === undefined ? 'begun' : 'continued']++;
      if (known === undefined) chats.push(conversationId);
      if (chats.length > 6) chats.shift();
    }
    if (number === Math.floor(questions / 4)) early = residentBytes();
  }
  const late = residentBytes();
  const again = await session.prefill();
  await session.dispose();
  await model.dispose();
  const megabytes = (bytes: number) => `${(bytes / 1e6).toFixed(0)} MB`;
  const kinds = Object.entries(counts).map(([kind, count]) => `${count} ${kind}`);
  console.log(
    `${questions} questions (${kinds.join(', ')}): ${megabytes(early)} resident after a quarter, ` +
      `${megabytes(late)} at the end, ${(late / early).toFixed(3)} times`,
  );
  if (again.reused !== tokens) throw new Error('The reading was not kept.');
  if (late > early * 1.05) throw new Error('Memory grew with the questions.');
}

main().catch((error: unknown) => {
  console.error(error instanceof Error ? error.message : error);
  process.exitCode = 1;
});
