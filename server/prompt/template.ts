/**
 * Chat templates: the model's own Jinja, rendered around sentinels. Template text is encoded with special tokens, what
 * stands in place of a sentinel as plain text, so that no file of a repository can forge a turn.
 */
import { randomUUID } from 'node:crypto';
import { runInNewContext } from 'node:vm';
import { Template } from '@huggingface/jinja';
import { LongviewError } from '../errors';
import type { Tokenizer } from '../tokenizer/types';

const chatMl =
  "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}" +
  "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";

export interface ChatFormat {
  /** Tokens before the content in what `system` gives. */
  readonly contentStart: number;
  /** Tokens from the start to the end of the system turn, given the tokens of its content. Independent of the question. */
  system(content: Int32Array): Int32Array;
  /** Tokens of the first question's turn, up to and including the start of the answer. */
  question(text: string): Int32Array;
  /** The same behind an answer: the end of its turn comes first. The answer's stop token is not part of the answer. */
  followUp(text: string): Int32Array;
}

export function concat(...parts: Int32Array[]): Int32Array {
  const all = new Int32Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all;
}

interface Message {
  role: 'system' | 'user' | 'assistant';
  content: string;
}

/** The day that Llama's templates fall back on. With today's, nothing that was read could be gone on with tomorrow. */
const date = '26 Jul 2024';
const dateParts: Readonly<Record<string, string>> = {
  ...{ d: '26', m: '07', Y: '2024', y: '24', b: 'Jul', B: 'July', a: 'Fri', A: 'Friday' },
  ...{ H: '00', M: '00', S: '00', '%': '%' },
};
const formatDate = (form: string) => form.replace(/%(.)/g, (code, part: string) => dateParts[part] ?? code);
// Where a block ends with its line, the line feed is not of the text.
const fixDate = '{% set strftime_now = format_date %}\n';

/** A template is a program, and comes with the model: one that counts to a billion is stopped. Others take milliseconds. */
const maxSeconds = 2;

function render(tokenizer: Tokenizer, messages: readonly Message[]): string {
  const context = { render: () => renderFreely(tokenizer, messages) };
  try {
    return runInNewContext('render()', context, { timeout: maxSeconds * 1000 }) as string;
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    throw code === 'ERR_SCRIPT_EXECUTION_TIMEOUT' ? new Error(`it takes over ${maxSeconds} seconds`) : error;
  }
}

function renderFreely(tokenizer: Tokenizer, messages: readonly Message[]): string {
  const special = (token = -1) => tokenizer.specialText(token) ?? '';
  const template = tokenizer.chatTemplate ?? chatMl;
  return new Template(fixDate + template).render({
    messages,
    add_generation_prompt: true,
    // Who asks about a repository waits: models that can do either answer at once.
    enable_thinking: false,
    // Only those with gpt-oss's channels are told so in this way: others refuse an effort that they do not have.
    ...(template.includes('<|channel|>') && { reasoning_effort: 'low' }),
    bos_token: special(tokenizer.bosToken),
    eos_token: special(tokenizer.stopTokens[0]),
    date_string: date,
    format_date: formatDate,
  });
}

/** What stands before each of the sentinels, and behind the last; undefined where one is missing. */
function piecesAround(sentinels: readonly string[], text: string): string[] | undefined {
  let rest = text;
  const pieces: string[] = [];
  for (const sentinel of sentinels) {
    const at = rest.indexOf(sentinel);
    if (at < 0) return undefined;
    pieces.push(rest.slice(0, at));
    rest = rest.slice(at + sentinel.length);
  }
  return [...pieces, rest];
}

/**
 * Where a template has no system turn, the text stands before the first question. Throws LongviewError
 * `unsupported_tokenizer` for one that cannot hold a conversation.
 */
export function createChatFormat(tokenizer: Tokenizer): ChatFormat {
  const [system, first, answer, second] = [randomUUID(), randomUUID(), randomUUID(), randomUUID()];
  const sentinels = [system, first, answer, second];
  const later: Message[] = [
    { role: 'assistant', content: answer },
    { role: 'user', content: second },
  ];
  let refusal: unknown;
  const piecesOf = (...messages: Message[]) => {
    try {
      return piecesAround(sentinels, render(tokenizer, [...messages, ...later]));
    } catch (error) {
      refusal ??= error;
      return undefined;
    }
  };
  const pieces =
    piecesOf({ role: 'system', content: system }, { role: 'user', content: first }) ??
    piecesOf({ role: 'user', content: `${system}\n\n${first}` });
  if (!pieces)
    throw new LongviewError(
      'unsupported_tokenizer',
      refusal instanceof Error
        ? `The model's chat template holds no conversation (${refusal.message}). Take another file of the model.`
        : "The model's chat template has no place for a conversation. Take another file of the model.",
      { cause: refusal },
    );
  // The answer that is to come may begin with more than one that was given: with thoughts that are skipped.
  const [, , given, , toCome] = pieces;
  if (toCome?.startsWith(given!)) pieces[2] = toCome;
  const [beforeSystem, beforeQuestion, beforeAnswer, between] = pieces.map((piece) =>
    tokenizer.encodeWithSpecials(piece),
  );
  if (!beforeSystem || !beforeQuestion || !beforeAnswer || !between)
    throw new LongviewError('internal', 'The chat template fell apart.');
  // What ends the system turn belongs to it: its end token and the white space up to the next special token.
  let split = beforeQuestion.indexOf(between[0] ?? -1) + 1;
  while (
    split > 0 &&
    split < beforeQuestion.length &&
    tokenizer.specialText(beforeQuestion[split] ?? -1) === undefined
  )
    split++;
  const opening = beforeQuestion.subarray(split);
  const plain = (text: string, before: Int32Array) =>
    tokenizer.encode(text.trim(), tokenizer.specialText(before.at(-1) ?? -1) !== undefined);
  return {
    contentStart: beforeSystem.length,
    system: (content) => concat(beforeSystem, content, beforeQuestion.subarray(0, split)),
    question: (question) => concat(opening, plain(question, opening), beforeAnswer),
    followUp: (question) => concat(between, plain(question, between), beforeAnswer),
  };
}
