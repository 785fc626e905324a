/** Makes data for the evaluation: real repositories, packed as the product packs them, with conversations about them. */
import { basename } from 'node:path';
import { readModelMetadata } from '../../server/engine/nativeEngine';
import { fileText, head, tail } from '../../server/prompt/frame';
import { concat, createChatFormat, type ChatFormat } from '../../server/prompt/template';
import { createTokenizer } from '../../server/tokenizer/tokenizer';
import type { Tokenizer } from '../../server/tokenizer/types';
import { vocabularyFromGguf } from '../../server/tokenizer/vocabulary';
import { readRepository } from './cut';
import { readFacts } from './facts';
import { getSources } from './getSources';
import { lookupTurns, type Turn } from './lookupTurns';
import { seededRandom, shuffled } from './questions';
import { rulerTurns } from './rulerTurns';
import { writeData, type Sequence } from './sequences';
import type { SourceFile } from './symbols';

export interface MakeOptions {
  /** Tokens of a sequence. */
  length: number;
  /** Sequences in all, shared by the repositories in turn. */
  count: number;
  /** Folders, or names that getSources.ts knows. */
  repositories: string[];
  tasks: 'lookups' | 'ruler';
  seed: number;
  /** A GGUF whose tokenizer and chat template to use. */
  model: string;
}

interface Writer {
  tokenizer: Tokenizer;
  format: ChatFormat;
}

/** Longer prompts hold more to ask about, and cost more to read. */
const turnsFor = (length: number) => Math.min(24, 6 + Math.floor(length / 2048));
/** Reserved for each turn; the longest answers have about 100 tokens. */
const tokensPerTurn = 75;

export function makeData(file: string, options: MakeOptions): void {
  const tokenizer = createTokenizer(vocabularyFromGguf(readModelMetadata(options.model)));
  const writer = { tokenizer, format: createChatFormat(tokenizer) };
  const repositories = options.repositories.map((name) => {
    const folder = getSources(name);
    const files = readRepository(folder).filter(({ path }) => path.endsWith('.py'));
    return { name: basename(folder), folder, files };
  });
  const sequences = Array.from({ length: options.count }, (_, index) => {
    const repository = repositories[index % repositories.length]!;
    const random = seededRandom(options.seed * 1009 + index);
    const sequence = makeSequence(writer, repository, options, random);
    process.stderr.write(`${repository.name}: ${sequence.answers.length} answers\n`);
    return { ...sequence, index };
  });
  writeData(file, { n: options.length, sequences });
}

function makeSequence(
  writer: Writer,
  { name, folder, files }: { name: string; folder: string; files: SourceFile[] },
  { length, tasks }: MakeOptions,
  random: () => number,
): Omit<Sequence, 'index'> {
  const count = turnsFor(length);
  const room = length - count * tokensPerTurn;
  const madeUp = tasks === 'ruler' ? rulerTurns(count, random) : undefined;
  const { system, kept } = pack(writer, name, files, madeUp?.files ?? [], room, random);
  if (madeUp) return converse(writer, system, madeUp.turns, length);
  // Enough of the other files for names that are not in the prompt.
  const others = shuffled(
    files.filter((file) => !kept.includes(file)),
    random,
  ).slice(0, 40);
  const turns = lookupTurns(readFacts(folder, kept), readFacts(folder, others), count, random);
  return converse(writer, system, turns, length);
}

/** Fills the room with real files picked at random, in the order of their paths; the made-up ones stand anywhere among them. */
function pack(
  { tokenizer, format }: Writer,
  name: string,
  files: SourceFile[],
  madeUp: SourceFile[],
  room: number,
  random: () => number,
): { system: Int32Array; kept: SourceFile[] } {
  const encode = (file: SourceFile) => ({ file, ids: tokenizer.encode(fileText(file.path, file.text)) });
  const headOf = (list: SourceFile[]) => tokenizer.encode(head(name, list.map(({ path }) => path))); // prettier-ignore
  const strewn = madeUp.map(encode);
  const real: typeof strewn = [];
  const spaceLeft = () => {
    const all = [...strewn, ...real];
    return (
      room - headOf(all.map(({ file }) => file)).length - all.reduce((sum, { ids }) => sum + ids.length, 0)
    );
  };
  let left = spaceLeft();
  let failures = 0;
  for (const file of shuffled(files, random)) {
    // A token has 2 to 6 characters: what cannot fit, or would be most of the prompt alone, is not even encoded.
    if (file.text.length < 200 || file.text.length > 6 * left || file.text.length > 2 * room) continue;
    const encoded = encode(file);
    // Its name in the tree costs up to as much as in its frame.
    if (encoded.ids.length + tokenizer.encode(file.path).length > left) {
      if (++failures > 30) break;
      continue;
    }
    real.push(encoded);
    left = spaceLeft();
    if (left < 200) break;
  }
  const order = real.sort((a, b) => (a.file.path < b.file.path ? -1 : 1));
  const kept = order.map(({ file }) => file);
  for (const made of strewn) order.splice(Math.floor(random() * (order.length + 1)), 0, made);
  const content = concat(
    headOf(order.map(({ file }) => file)),
    ...order.map(({ ids }) => ids),
    tokenizer.encode(tail),
  );
  return { system: format.system(content), kept };
}

/** The conversation behind the system turn, as far as there is room; padding after the last answer. */
function converse(
  { tokenizer, format }: Writer,
  system: Int32Array,
  turns: Turn[],
  length: number,
): Omit<Sequence, 'index'> {
  const parts = [system];
  let used = system.length;
  const answers: Sequence['answers'] = [];
  const endOfTurn = format.followUp('').slice(0, 1);
  for (const { kind, question, answer } of turns) {
    const asked = answers.length === 0 ? format.question(question) : format.followUp(question);
    const answered = tokenizer.encode(answer);
    // The end of its turn is part of an answer; as a token it comes with the next question.
    if (used + asked.length + answered.length + endOfTurn.length > length) break;
    const from = used + asked.length;
    used = from + answered.length;
    answers.push({ from, to: used + endOfTurn.length, kind });
    parts.push(asked, answered);
  }
  const tokens = new Int32Array(length).fill(tokenizer.stopTokens[0] ?? 0);
  tokens.set(concat(...parts, endOfTurn));
  return { tokens, answers };
}
