/** A model and a workspace: what is in the prompt, its state, and the conversations about it. */
import { randomUUID } from 'node:crypto';
import path from 'node:path';
import type { PrefillProgress } from '../engine/engine';
import { LongviewError } from '../errors';
import type { WorkspaceCache } from '../cache/workspaceCache';
import { Lock } from '../lock';
import type { OpenModel } from '../models/openModel';
import { asOnDisk } from '../platform/fileNames';
import { Packer, type PackedRepository } from '../prompt/pack';
import { changedBetween, lookingAgain, type Packing } from '../prompt/packing';
import type { AskResult, ContextResult, Phase, Source } from '../protocol';
import { scanWorkspace, type Root, type ScanOptions, type ScanResult } from '../workspace/scan';
import { checkCitations, type Places } from './citations';
import { Conversation, type Turn } from './conversation';
import { Conversations } from './conversations';
import { RepositoryState, type StateStore } from './repositoryState';
import { findSources } from './sources';
import { moreRoom } from './room';

/** Tokens kept free for a question, beside the answer. */
const questionReserve = 1024;
/** Of what is left for files, where not all of them fit: an edit shall find room there. */
const editShare = 0.05;

export interface SessionOptions extends Omit<ScanOptions, 'signal'> {
  maxAnswerTokens?: number;
  /** Keeps the state on disk between processes. */
  cache?: WorkspaceCache;
  /** Texts of open documents that are not saved, by the keys of their paths: a question counts them. */
  unsavedTexts?: () => ReadonlyMap<string, string>;
  /** Someone calls `rebase` when it is due. */
  rebasesInBackground?: boolean;
}

export interface AskRequest {
  question: string;
  /** Absent: a new conversation. */
  conversationId?: string;
  /** Earlier turns, for a conversation that is not known here. */
  history?: readonly Turn[];
  signal?: AbortSignal;
  onPhase?: (phase: Phase, detail?: { done: number; total: number }) => void;
  onPacked?: (repository: PackedRepository) => void;
  /** Of the repository; then of the question. */
  onProgress?: (progress: PrefillProgress) => void;
  onQuestionProgress?: (progress: PrefillProgress) => void;
  onText?: (text: string) => void;
  /** The places in what was said, where the answer does not come to its end. */
  onCut?: (places: Places) => void;
}

export class Session {
  private readonly packer: Packer;
  private readonly packing = new Lock();
  private packed: PackedRepository | undefined;
  private roomToRebase = true;
  private gitHistory: boolean | undefined;
  private readonly closing = new AbortController();
  private readonly running = new Set<Promise<unknown>>();
  private readonly conversations = new Conversations();
  /** What was in the prompt when a conversation was last answered. */
  private readonly answeredFrom = new WeakMap<Conversation, PackedRepository>();
  /** What a prompt was made of. */
  private readonly packingOf = new WeakMap<Int32Array, Packing>();

  private constructor(
    readonly model: OpenModel,
    private readonly roots: readonly Root[],
    readonly state: RepositoryState,
    private readonly options: SessionOptions,
  ) {
    this.gitHistory = options.gitHistory;
    const budget = model.engine.window - this.reservedTokens;
    this.packer = new Packer({
      name: roots.map((root) => root.name).join(' + '),
      tokenizer: model.tokenizer,
      budget,
      editRoom: Math.ceil(budget * editShare),
    });
  }

  static async create(
    model: OpenModel,
    roots: readonly Root[],
    options: SessionOptions = {},
  ): Promise<Session> {
    const { cache } = options;
    // Until something was packed there is nothing to load or save.
    let session: Session | undefined = undefined;
    const store: StateStore | undefined = cache && {
      load: (...load) => cache.load(...load),
      save: (context) => {
        const packing = session?.packer.current;
        if (packing) cache.save(context, packing);
      },
    };
    session = new Session(model, roots, await RepositoryState.create(model.engine, store), options);
    const packing = await cache?.restore();
    if (packing) session.packer.adopt(lookingAgain(packing));
    return session;
  }

  private get maxAnswerTokens(): number {
    return this.options.maxAnswerTokens ?? 512;
  }

  private get reservedTokens(): number {
    // A small window still has to hold files.
    return Math.min(questionReserve + this.maxAnswerTokens, Math.floor(this.model.engine.window / 2));
  }

  /** Git may be asked from now on: what is packed afresh is in its order, and what was read stays read. */
  trust(): void {
    this.gitHistory = true;
  }

  /** What was packed last. */
  get repository(): PackedRepository | undefined {
    return this.packed;
  }

  /** Whether it was disposed, which stops what it does. */
  get isClosed(): boolean {
    return this.closing.signal.aborted;
  }

  /** Runs work that dispose() stops and waits for. */
  private async tracked<T>(
    signal: AbortSignal | undefined,
    work: (signal: AbortSignal) => Promise<T>,
  ): Promise<T> {
    const both = signal ? AbortSignal.any([signal, this.closing.signal]) : this.closing.signal;
    const job = work(both);
    this.running.add(job);
    try {
      return await job;
    } finally {
      this.running.delete(job);
    }
  }

  private scan(signal?: AbortSignal): Promise<ScanResult> {
    return scanWorkspace(this.roots, { ...this.options, gitHistory: this.gitHistory, signal });
  }

  /** Looks at the files and packs them, or what changed since. */
  pack({ signal, onPhase }: Pick<AskRequest, 'signal' | 'onPhase'> = {}): Promise<PackedRepository> {
    return this.packWith(this.options.unsavedTexts?.(), { signal, onPhase });
  }

  private packWith(
    buffers: ReadonlyMap<string, string | undefined> | undefined,
    { signal, onPhase }: Pick<AskRequest, 'signal' | 'onPhase'>,
  ): Promise<PackedRepository> {
    return this.packing.run(async () => {
      onPhase?.('scanning');
      const scan = await this.scan(signal);
      onPhase?.('tokenizing', { done: 0, total: scan.files.length });
      this.packed = await this.packer.pack(scan, {
        signal,
        buffers,
        rebaseLater: this.options.rebasesInBackground && this.roomToRebase,
        onProgress: (done, total) => onPhase?.('tokenizing', { done, total }),
      });
      return this.packed;
    }, signal);
  }

  // --- keeping up with the files --------------------------------------------------------------------------------------

  /** Whether the repository was read: what is missing then has changed since. A reading that was stopped is none. */
  get hasRead(): boolean {
    return this.state.wasRead !== undefined;
  }

  /** Looks at the saved files (unsaved texts stay as they were packed): how many changed since they were read. */
  async changedFiles(signal?: AbortSignal): Promise<number> {
    const unsaved = [...(this.options.unsavedTexts?.().keys() ?? [])];
    const repository = await this.packWith(new Map(unsaved.map((file) => [file, undefined])), { signal });
    const read = this.state.wasRead && this.packingOf.get(this.state.wasRead);
    return read ? changedBetween(read, repository.packing) : repository.files.length;
  }

  /** Reads what was packed last, in the background. */
  catchUp(signal?: AbortSignal): Promise<void> {
    return this.tracked(signal, async (both) => {
      const prompt = this.packed && this.prompt(this.packed);
      if (!prompt) return;
      const read = () => this.state.read(prompt, undefined, both, 'background');
      await this.conversations.makingRoom(read, both);
    });
  }

  get rebaseDue(): boolean {
    return this.roomToRebase && this.packer.rebaseDue;
  }

  /** Whether `rebase` is worth its price while nobody asks or edits. */
  get rebaseWorthwhile(): boolean {
    return this.roomToRebase && this.packer.rebaseWorthwhile;
  }

  /** Packs and reads afresh beside everything else, and changes over when that is done. */
  rebase(signal?: AbortSignal): Promise<void> {
    return this.tracked(signal, async (both) => {
      const scan = await this.scan(both);
      const packing = await this.packer.fresh(scan, { signal: both });
      const prompt = this.model.format.system(this.packer.promptOf(packing));
      const context = await this.model.engine.createContext();
      try {
        const how = { signal: both, priority: 'background', sparse: true } as const;
        const read = () => context.extend(prompt.subarray(context.length), how);
        await this.conversations.makingRoom(read, both);
        await this.packing.run(() => Promise.resolve(this.packer.adopt(packing)));
        // Finds the pages that were just made.
        await this.packWith(this.options.unsavedTexts?.(), { signal: both });
        await this.state.read(this.prompt(this.packed!), undefined, both);
      } catch (error) {
        if (!(error instanceof LongviewError) || error.code !== 'out_of_memory') throw error;
        // Both do not fit: the next question packs afresh, and the former state makes room.
        this.roomToRebase = false;
      } finally {
        await context.dispose();
      }
    });
  }

  private prompt({ tokens, packing }: PackedRepository): Int32Array {
    const prompt = this.model.format.system(tokens);
    this.packingOf.set(prompt, packing);
    return prompt;
  }

  /** Reads the repository ahead of a question, or loads it: `seconds` are those of both. */
  prefill(
    request: Pick<AskRequest, 'signal' | 'onPhase' | 'onPacked' | 'onProgress'> = {},
  ): Promise<{ tokens: number; reused: number; seconds: number }> {
    return this.tracked(request.signal, async (signal) => {
      const repository = await this.pack({ ...request, signal });
      request.onPacked?.(repository);
      const prompt = this.prompt(repository);
      request.onPhase?.('reading');
      const read = () => this.state.read(prompt, request.onProgress, signal);
      const { reused, seconds, loaded } = await this.conversations.makingRoom(read, signal);
      return { tokens: prompt.length, reused, seconds: seconds + (loaded?.seconds ?? 0) };
    });
  }

  /** Throws LongviewError `question_too_long`, `empty_workspace`, `cancelled` and the engine's. */
  ask(request: AskRequest): Promise<AskResult> {
    return this.tracked(request.signal, (signal) => this.answer({ ...request, signal }));
  }

  private async answer(request: AskRequest): Promise<AskResult> {
    const start = performance.now();
    const { question, signal, onPhase } = request;
    if (question.trim() === '') throw new LongviewError('invalid_argument', 'The question is empty.');
    const repository = await this.pack(request);
    request.onPacked?.(repository);
    const packedSeconds = (performance.now() - start) / 1000;
    const id = request.conversationId ?? randomUUID();
    const begin = () => new Conversation(this.model, this.state, request.history);
    const conversation = this.conversations.use(id, begin);
    onPhase?.('reading');
    let said = '';
    // An answer of another chat is looked at no longer either: this one shall have the engine.
    this.conversations.stopLooking();
    const ask = () =>
      conversation.ask(this.prompt(repository), question, {
        maxTokens: this.maxAnswerTokens,
        signal,
        onProgress: request.onProgress,
        onQuestionProgress: request.onQuestionProgress,
        onAnswering: () => onPhase?.('answering'),
        onText: (text) => {
          said += text;
          request.onText?.(text);
        },
      });
    const asked = await this.conversations
      .makingRoom(ask, signal, { stays: conversation, unless: () => said !== '' })
      .catch((error: unknown) => {
        if (said !== '') request.onCut?.(checkCitations(said, repository.files));
        // Nobody was told what a new one is called.
        if (request.conversationId === undefined) this.conversations.forget(id);
        throw error;
      });
    this.answeredFrom.set(conversation, repository);
    return {
      conversationId: id,
      answer: asked.answer,
      ...checkCitations(asked.answer, repository.files),
      finish: asked.finish,
      full: asked.full,
      stats: {
        files: repository.files.length,
        skipped: overBudget(repository),
        promptTokens: asked.promptTokens,
        reusedTokens: asked.reusedTokens,
        prefillSeconds: asked.prefillSeconds,
        loaded: asked.loaded,
        firstTokenSeconds: packedSeconds + asked.firstTokenSeconds,
        decodeTokensPerSecond: asked.decodeTokensPerSecond,
        answerTokens: asked.answerTokens,
        density: this.state.attention.density,
        coveredMass: this.state.attention.coveredMass,
        device: this.model.engine.device.name,
        model: this.model.engine.model.name,
      },
    };
  }

  /**
   * Which files the last answer of a conversation was read from. Undefined where that cannot be told: by this device, in the
   * memory there is, of a state that is gone, or because a question comes. Throws `cancelled` and the engine's.
   */
  async sources(conversationId: string, signal?: AbortSignal): Promise<Source[] | undefined> {
    const conversation = this.conversations.get(conversationId);
    const repository = conversation && this.answeredFrom.get(conversation);
    if (!conversation || !repository || repository.places.length === 0) return undefined;
    const { format, tokenizer } = this.model;
    try {
      const focus = await this.tracked(signal, (both) => conversation.focus(both));
      return focus && findSources(focus, format.contentStart, repository, tokenizer);
    } catch (error) {
      if (error instanceof LongviewError && error.code === 'out_of_memory') return undefined;
      throw error;
    }
  }

  /** Whether all that was packed last has been read. */
  get isRead(): boolean {
    return this.packed !== undefined && this.state.holds(this.prompt(this.packed));
  }

  /** A question beside the conversations that does not make the repository be read; undefined when it is not read yet. */
  async aside(question: string, maxTokens: number, signal?: AbortSignal): Promise<string | undefined> {
    const prompt = this.packed && this.prompt(this.packed);
    if (!prompt || !this.state.holds(prompt)) return undefined;
    return this.tracked(signal, async (signal) => {
      const conversation = new Conversation(this.model, this.state);
      try {
        return (await conversation.ask(prompt, question, { maxTokens, signal, priority: 'hover' })).answer;
      } finally {
        await conversation.dispose();
      }
    });
  }

  async context(signal?: AbortSignal): Promise<ContextResult> {
    const repository = await this.tracked(signal, (both) => this.pack({ signal: both }));
    const { files, skipped, tokens } = repository;
    return {
      files: files.map(({ path, tokens }) => ({ path, tokens })),
      skipped,
      usedTokens: tokens.length,
      reservedTokens: this.reservedTokens,
      window: this.model.engine.window,
      room: moreRoom(this.model.engine, repository),
    };
  }

  /** Stops what runs, waits for it, and frees the state, when it is saved or `signal` does not let it be saved further. */
  async dispose(signal?: AbortSignal): Promise<void> {
    this.closing.abort();
    await Promise.allSettled(this.running);
    await this.options.cache?.finish(signal);
    await this.conversations.dispose();
    await this.state.dispose();
  }
}

/** Files that are left out for want of room: the M - N of "N of M files". */
export function overBudget(repository: PackedRepository): number {
  return repository.skipped.filter((file) => file.reason === 'over-budget').length;
}

/** The root of a single folder. */
export function rootOf(folder: string): Root {
  const absolute = asOnDisk(path.resolve(folder));
  return { name: path.basename(absolute), folder: absolute };
}
