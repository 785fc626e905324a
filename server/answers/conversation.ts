/** Questions and answers behind the repository: each turn pre-fills its own tokens only. */
import type { Context, GenerateResult, PrefillProgress, Priority } from '../engine/engine';
import { LongviewError } from '../errors';
import { Lock, whileWanted } from '../lock';
import type { OpenModel } from '../models/openModel';
import { concat } from '../prompt/template';
import type { AskResult } from '../protocol';
import { commonPrefix, type Reading, type RepositoryState } from './repositoryState';

export interface Turn {
  question: string;
  answer: string;
}

export interface AskOptions {
  maxTokens: number;
  priority?: Priority;
  signal?: AbortSignal;
  onProgress?: (progress: PrefillProgress) => void;
  /** The same of the question, with the turns before it where their state is lost: pasted code takes its time. */
  onQuestionProgress?: (progress: PrefillProgress) => void;
  /** Called when everything is read and the answer begins. */
  onAnswering?: () => void;
  onText?: (text: string) => void;
}

export interface Asked {
  answer: string;
  finish: GenerateResult['finish'];
  full?: AskResult['full'];
  promptTokens: number;
  /** Tokens whose state was there before, of promptTokens. */
  reusedTokens: number;
  answerTokens: number;
  /** Of the repository, as RepositoryState says. */
  loaded?: Reading['loaded'];
  prefillSeconds: number;
  firstTokenSeconds: number;
  decodeTokensPerSecond: number;
}

/** Says what helps: a terminal knows of no chat, and a new one is no shorter than the first turn of one. */
function tooLong(tokens: number, room: number, hasTurns: boolean): LongviewError {
  const [beside, more] = hasTurns ? [' and what was said before', 'begin a new chat, '] : ['', ''];
  return new LongviewError(
    'question_too_long',
    `The question has ${tokens} tokens; beside the repository${beside} there is room for ${Math.max(room, 0)}. Ask something shorter, ${more}or leave out files.`,
  );
}

export class Conversation {
  /** State of `tokens`, forked from the repository's; absent before the first question. */
  private context: Context | undefined;
  private tokens: Int32Array = new Int32Array();
  /** Tokens behind the repository, up to the end of the last answer. */
  private behind: Int32Array = new Int32Array();
  /** The answer at the end of the state; absent where that does not end with one. */
  private last: { start: number } | undefined;
  private looking = new AbortController();
  private readonly turns = new Lock();

  /** `turns`: what was said before, when the state of it is lost. */
  constructor(
    private readonly model: OpenModel,
    private readonly repository: RepositoryState,
    turns: readonly Turn[] = [],
  ) {
    for (const { question, answer } of turns)
      this.behind = concat(this.behind, this.turn(question), model.tokenizer.encode(answer));
  }

  private turn(question: string): Int32Array {
    return this.behind.length === 0
      ? this.model.format.question(question)
      : this.model.format.followUp(question);
  }

  /**
   * Asks behind `prompt` and what was said so far, after the turn before it. A turn that fails or is stopped leaves the conversation as it was.
   * Throws LongviewError `question_too_long`, `cancelled` and the engine's.
   */
  ask(prompt: Int32Array, question: string, options: AskOptions): Promise<Asked> {
    this.stopLooking();
    return this.turns.run(() => this.askNow(prompt, question, options), options.signal);
  }

  /** Ends what `focus` does, which would keep a question waiting. */
  stopLooking(): void {
    this.looking.abort();
    this.looking = new AbortController();
  }

  /**
   * What the last answer looked at (engine.ts, Context.focus), for each token before the last one of its question, which chooses
   * the first word. Undefined where its state is gone, the device cannot tell, or a question comes. Throws `cancelled` and the
   * engine's.
   */
  async focus(signal?: AbortSignal): Promise<Float32Array | undefined> {
    const { last } = this;
    const questions = this.looking.signal;
    const both = signal ? AbortSignal.any([signal, questions]) : questions;
    // What waits in the engine is not waited for when a question comes: it has a copy of the state, or never begins.
    const look = async () =>
      last && last === this.last && this.context
        ? whileWanted(this.context.focus(last.start - 1, { signal: both }), both)
        : undefined;
    return this.turns.run(look, both).catch((error: unknown) => {
      if (questions.aborted && !signal?.aborted) return undefined;
      throw error;
    });
  }

  private async askNow(prompt: Int32Array, question: string, options: AskOptions): Promise<Asked> {
    const start = performance.now();
    this.last = undefined;
    const { engine, tokenizer } = this.model;
    const { signal, priority = 'answer' } = options;
    const before = this.behind.length;
    const behind = concat(this.behind, this.turn(question));
    const tokens = concat(prompt, behind);
    if (tokens.length >= engine.window)
      throw tooLong(behind.length - before, engine.window - prompt.length - before - 1, before > 0);
    // The state of an earlier turn serves when the repository has not changed under it.
    let prefillSeconds = 0;
    let loaded: Reading['loaded'];
    let reused = commonPrefix(this.tokens, tokens);
    if (!this.context || reused < prompt.length) {
      await this.release();
      const fork = await this.repository.fork(prompt, options.onProgress, signal);
      this.context = fork.context;
      prefillSeconds += fork.seconds;
      this.tokens = prompt;
      reused = fork.reused;
      loaded = fork.loaded;
    }
    const context = this.context;
    const common = commonPrefix(this.tokens, tokens);
    if (common < context.length) await context.truncate(common);
    this.tokens = tokens.subarray(0, common);
    try {
      const left = tokens.subarray(common);
      const onProgress = options.onQuestionProgress;
      onProgress?.({ done: 0, total: left.length, tokensPerSecond: 0 });
      const own = await context.extend(left, { signal, priority, onProgress });
      prefillSeconds += own.seconds;
      reused += own.reused;
      this.tokens = tokens;
      options.onAnswering?.();
      const decoder = tokenizer.decoder();
      let answer = '';
      let firstTokenSeconds = 0;
      const emit = (text: string) => {
        answer += text;
        if (text) options.onText?.(text);
      };
      const result = await context.generate({
        maxTokens: options.maxTokens,
        stopTokens: tokenizer.stopTokens,
        signal,
        priority,
        onToken: (token) => {
          firstTokenSeconds ||= (performance.now() - start) / 1000;
          emit(decoder.push(token));
        },
      });
      emit(decoder.end());
      this.behind = concat(behind, result.tokens);
      this.tokens = concat(prompt, this.behind);
      if (result.tokens.length > 0) this.last = { start: tokens.length };
      const lacked = options.maxTokens - result.tokens.length;
      return {
        answer,
        finish: result.finish,
        full: result.finish !== 'window' ? undefined : before >= lacked ? 'turns' : 'repository',
        promptTokens: tokens.length,
        reusedTokens: reused,
        answerTokens: result.tokens.length,
        prefillSeconds,
        loaded,
        firstTokenSeconds: firstTokenSeconds || (performance.now() - start) / 1000,
        decodeTokensPerSecond: result.tokens.length / Math.max(result.seconds, 1e-6),
      };
    } catch (error) {
      // How far it came is not known exactly: the next turn goes on from what is certain.
      await context.truncate(Math.min(common, context.length)).catch(() => undefined);
      this.tokens = tokens.subarray(0, common);
      throw error;
    }
  }

  /** Frees the state when the turns before are over: who goes on after it has all read again. */
  dispose(): Promise<void> {
    this.stopLooking();
    return this.turns.run(() => this.release());
  }

  private async release(): Promise<void> {
    const context = this.context;
    this.context = undefined;
    this.last = undefined;
    this.tokens = new Int32Array();
    await context?.dispose();
  }
}
