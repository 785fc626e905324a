/** A model, a folder and the KV state of its files: each question forks it and pre-fills its own tokens only. */
import path from 'node:path';
import type { Context, Engine, PrefillProgress } from '../engine/engine';
import { LongviewError } from '../errors';
import { packRepository, type PackedRepository } from '../prompt/pack';
import { createChatFormat, type ChatFormat } from '../prompt/template';
import type { AskResult } from '../protocol';
import type { Tokenizer } from '../tokenizer/types';
import { scanFolder, type ScanOptions } from '../workspace/scan';
import { findCitations } from './citations';

/** Tokens kept free for a question and its answer. */
const reserve = 1024;

export interface SessionOptions extends ScanOptions {
  maxAnswerTokens?: number;
}

export class Session {
  private constructor(
    private readonly engine: Engine,
    private readonly tokenizer: Tokenizer,
    private readonly format: ChatFormat,
    readonly repository: PackedRepository,
    private readonly prompt: Int32Array,
    private readonly base: Context,
    private readonly options: SessionOptions,
  ) {}

  /** Scans and packs; the files are read by the model with the first question. */
  static async create(
    engine: Engine,
    tokenizer: Tokenizer,
    folder: string,
    options: SessionOptions = {},
  ): Promise<Session> {
    const format = createChatFormat(tokenizer);
    const scan = await scanFolder(folder, options);
    const budget = engine.window - reserve - (options.maxAnswerTokens ?? 512);
    const name = path.basename(path.resolve(folder));
    const repository = await packRepository(scan, { name, tokenizer, budget, signal: options.signal });
    return new Session(
      engine,
      tokenizer,
      format,
      repository,
      format.system(repository.tokens),
      await engine.createContext(),
      options,
    );
  }

  /** Reads what is not read yet. Cancelled, it keeps what it has. */
  async prefill(
    onProgress?: (progress: PrefillProgress) => void,
    signal?: AbortSignal,
  ): Promise<{ seconds: number; reused: number }> {
    const reused = this.base.length;
    if (reused === this.prompt.length) return { seconds: 0, reused };
    const { seconds } = await this.base.extend(this.prompt.subarray(reused), { signal, onProgress });
    return { seconds, reused };
  }

  /** Throws LongviewError `question_too_long`, `cancelled` and the engine's. */
  async ask(
    question: string,
    on: {
      text?: (text: string) => void;
      progress?: (progress: PrefillProgress) => void;
      signal?: AbortSignal;
    } = {},
  ): Promise<Omit<AskResult, 'conversationId'>> {
    const start = performance.now();
    const turn = this.format.question(question);
    const room = this.engine.window - this.prompt.length;
    if (turn.length >= room)
      throw new LongviewError(
        'question_too_long',
        `The question has ${turn.length} tokens; beside the repository there is room for ${room - 1}. Ask something shorter or leave out files.`,
      );
    const { seconds, reused } = await this.prefill(on.progress, on.signal);
    const context = await this.base.fork();
    try {
      const own = await context.extend(turn, { signal: on.signal, priority: 'answer' });
      const decoder = this.tokenizer.decoder();
      let answer = '';
      let firstTokenSeconds = 0;
      const emit = (text: string) => {
        answer += text;
        if (text) on.text?.(text);
      };
      const result = await context.generate({
        maxTokens: this.options.maxAnswerTokens ?? 512,
        stopTokens: this.tokenizer.stopTokens,
        signal: on.signal,
        onToken: (token) => {
          firstTokenSeconds ||= (performance.now() - start) / 1000;
          emit(decoder.push(token));
        },
      });
      emit(decoder.end());
      const { files, skipped } = this.repository;
      return {
        answer,
        citations: findCitations(answer, files),
        finish: result.finish,
        stats: {
          files: files.length,
          skipped: skipped.filter((file) => file.reason === 'over-budget').length,
          promptTokens: this.prompt.length + turn.length,
          reusedTokens: reused,
          prefillSeconds: seconds + own.seconds,
          firstTokenSeconds,
          decodeTokensPerSecond: result.tokens.length / Math.max(result.seconds, 1e-6),
          answerTokens: result.tokens.length,
          device: this.engine.device.name,
          model: this.engine.model.name,
        },
      };
    } finally {
      await context.dispose();
    }
  }
}
