/**
 * Chat templates: the model's own Jinja, rendered around sentinels. Template text is encoded with special tokens, what
 * stands in place of a sentinel as plain text, so that no file of a repository can forge a turn.
 */
import { randomUUID } from 'node:crypto';
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

/** Throws LongviewError `unsupported_tokenizer` for a template that cannot hold a system turn and a conversation. */
export function createChatFormat(tokenizer: Tokenizer): ChatFormat {
  const [system, first, answer, second] = [randomUUID(), randomUUID(), randomUUID(), randomUUID()];
  const template = new Template(tokenizer.chatTemplate ?? chatMl);
  const text = template.render({
    messages: [
      { role: 'system', content: system },
      { role: 'user', content: first },
      { role: 'assistant', content: answer },
      { role: 'user', content: second },
    ],
    add_generation_prompt: true,
    bos_token: tokenizer.bosToken === undefined ? '' : (tokenizer.specialText(tokenizer.bosToken) ?? ''),
    eos_token: tokenizer.specialText(tokenizer.stopTokens[0] ?? -1) ?? '',
  });
  const pieces: string[] = [];
  let rest = text;
  for (const sentinel of [system, first, answer, second]) {
    const at = rest.indexOf(sentinel);
    if (at < 0)
      throw new LongviewError(
        'unsupported_tokenizer',
        "The model's chat template has no place for a system turn and a conversation.",
      );
    pieces.push(rest.slice(0, at));
    rest = rest.slice(at + sentinel.length);
  }
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
  return {
    contentStart: beforeSystem.length,
    system: (content) => concat(beforeSystem, content, beforeQuestion.subarray(0, split)),
    question: (question) => concat(opening, tokenizer.encode(question.trim()), beforeAnswer),
    followUp: (question) => concat(between, tokenizer.encode(question.trim()), beforeAnswer),
  };
}
