/** The backend without its wire: answers requests about a workspace, and shows how it goes. */
import { existsSync } from 'node:fs';
import path from 'node:path';
import { clearCache, savedWorkspaces } from './cache/storage';
import { HoverExplanations, identifierAt } from './answers/hover';
import { overBudget, type Session } from './answers/session';
import { LongviewError } from './errors';
import { calibrate } from './models/calibrate';
import { catalog } from './models/catalog';
import { deletePart, downloadModel, partOf } from './models/download';
import { deleteModel, installedModels } from './models/installed';
import { chooseModel, locateModel } from './models/locate';
import { calibratedFolder } from './models/profiles';
import { Opened, type ServiceOptions } from './opened';
import { whyNoGpu } from './platform/gpu';
import type { PackedRepository } from './prompt/pack';
import { namePattern } from './protocol';
import type {
  AskParams,
  AskProgress,
  AskResult,
  CacheResult,
  CalibrateResult,
  ClearCacheResult,
  ContextResult,
  DownloadProgress,
  ExplainResult,
  ModelsResult,
  Phase,
  PrefillResult,
  PrefillStatus,
  Settings,
  SourcesResult,
} from './protocol';
import type { StatusBoard } from './statusBoard';
import { phaseMessage, prefillStatus, readingMessage, throttled } from './statusText';
import type { Root } from './workspace/scan';

const explainable = new RegExp(`^${namePattern}$`, 'u');
const longestSymbol = 200;

export class Service {
  private readonly opened: Opened;
  private readonly board: StatusBoard;
  private readonly hovers = new HoverExplanations();
  /** What the status says where there is nothing to read. */
  private nothingToRead: string | undefined;

  constructor(private readonly options: ServiceOptions) {
    this.opened = new Opened(options);
    this.board = this.opened.board;
  }

  /** Loads the model ahead of the first question. */
  start(): Promise<void> {
    return this.opened.start();
  }

  /** New settings or folders: what they change is opened again with the next question. */
  change(changes: { settings?: Settings; roots?: readonly Root[] }): Promise<void> {
    return this.opened.change(changes);
  }

  /** The workspace is trusted from now on: git may be asked. */
  trust(): Promise<void> {
    return this.opened.trust();
  }

  /** Files were saved, made or deleted. */
  filesChanged(): void {
    this.opened.refresher?.poke();
    this.forgetNothingToRead();
  }

  /** It may be there now: a status that is ready, without a context, has the editor ask for it. */
  private forgetNothingToRead(): void {
    if (this.nothingToRead !== undefined && this.board.message === this.nothingToRead)
      this.opened.showReady();
    this.nothingToRead = undefined;
  }

  ask(params: AskParams, progress: (progress: AskProgress) => void, signal: AbortSignal): Promise<AskResult> {
    let spoken = false;
    const answer = async (session: Session) => {
      const phase = (name: Phase, message: string, prefill?: PrefillStatus) => {
        this.board.show({ phase: name, message, ...(prefill && { prefill }) });
        progress({ kind: 'phase', phase: name, message, ...(prefill && { prefill }) });
      };
      const { question, conversationId, history } = params;
      const result = await session.ask({
        question,
        conversationId,
        history,
        signal,
        onPhase: (name, detail) => phase(name, phaseMessage(name, detail)),
        onPacked: (repository) => {
          const context = this.showPacked(session, repository);
          progress({ kind: 'context', ...context });
        },
        onProgress: throttled((reading) => phase('reading', readingMessage(reading), prefillStatus(reading))),
        onQuestionProgress: throttled((reading) =>
          phase('reading', readingMessage(reading, 'the question: ')),
        ),
        onText: (text) => {
          spoken = true;
          progress({ kind: 'text', text });
        },
        onCut: (places) => progress({ kind: 'places', ...places }),
      });
      this.showRead();
      return result;
    };
    return this.opened.showing(() => this.opened.onSession(signal, answer, () => spoken));
  }

  /** Which files the last answer of a conversation was read from; nothing where its session is closed. */
  async sources(conversationId: string, signal: AbortSignal): Promise<SourcesResult> {
    return { sources: await this.opened.session?.sources(conversationId, signal) };
  }

  prefill(signal: AbortSignal): Promise<PrefillResult> {
    const read = async (session: Session) => {
      const { tokens, reused, seconds } = await session.prefill({
        signal,
        onPhase: (name, detail) => this.board.show({ phase: name, message: phaseMessage(name, detail) }),
        onPacked: (repository) => this.showPacked(session, repository),
        onProgress: throttled((reading) =>
          this.board.show({
            phase: 'reading',
            message: readingMessage(reading),
            prefill: prefillStatus(reading),
          }),
        ),
      });
      this.showRead();
      return { tokens, reusedTokens: reused, seconds };
    };
    return this.opened.showing(() => this.opened.onSession(signal, read));
  }

  /** What each head may leave out, for the present target. The session closes first: its pages make room for the text. */
  calibrate(signal: AbortSignal): Promise<CalibrateResult> {
    return this.opened.showing(() =>
      this.opened.opening.run(async () => {
        const {
          prefillMode,
          prefillTarget: target,
          include,
          exclude,
          encodings,
          maxFileKiB,
        } = this.opened.settings;
        if (prefillMode === 'dense' || target === 'exact')
          throw new LongviewError(
            'invalid_argument',
            'Repositories are read densely here, which needs no calibration: set longview.prefill.mode to auto and longview.prefill.target to balanced or fast first.',
          );
        const model = await this.opened.openedModel(undefined, signal);
        await this.opened.closeSession();
        const { modelsFolder } = this.options;
        const { trusted: gitHistory } = this.opened;
        const scan = { include, exclude, encodings, maxFileBytes: maxFileKiB * 1024, gitHistory };
        const start = performance.now();
        const [profile] = await calibrate(model, {
          source: { roots: this.opened.roots, scan },
          folder: calibratedFolder(modelsFolder),
          targets: [prefillMode === 'minference' ? prefillMode : target],
          signal,
          onProgress: throttled(({ done, total }) => {
            const tokensPerSecond = (1000 * done) / (performance.now() - start);
            const message = `Calibrating: ${done.toLocaleString('en')} of ${total.toLocaleString('en')} tokens`;
            this.board.show({
              phase: 'reading',
              message,
              prefill: prefillStatus({ done, total, tokensPerSecond }),
            });
          }),
        });
        if (!profile) throw new LongviewError('internal', 'The calibration gave no profile.');
        await this.opened.closeModel();
        await this.opened.openedModel();
        return { density: profile.density, uncalibratedDensity: profile.uncalibratedDensity };
      }, signal),
    );
  }

  private showRead(): void {
    this.board.note({ freshness: { state: 'current', changedFiles: 0 } });
    this.opened.refresher?.wasRead();
  }

  private showPacked(session: Session, repository: PackedRepository) {
    const context = {
      files: repository.files.length,
      skipped: overBudget(repository),
      tokens: repository.tokens.length,
      window: session.model.engine.window,
    };
    this.board.showAside({ context });
    return context;
  }

  async context(signal: AbortSignal): Promise<ContextResult> {
    try {
      const result = await this.opened.onSession(signal, async (session) => {
        const result = await session.context(signal);
        if (session.repository) this.showPacked(session, session.repository);
        return result;
      });
      this.forgetNothingToRead();
      return result;
    } catch (error) {
      const { code, message } = error as LongviewError;
      if (code === 'empty_workspace' || code === 'no_workspace' || code === 'window_exceeded') {
        this.nothingToRead = message;
        this.board.showAside({ health: 'warning', message, context: undefined });
      }
      throw error;
    }
  }

  /**
   * What a hover shows, at once. `text` of the document and a place in it, both from 0. Undefined: nothing to say, or hovers
   * are off.
   */
  hover(
    text: string,
    line: number,
    character: number,
  ): { kind: 'plaintext' | 'markdown'; value: string } | undefined {
    const symbol = this.opened.settings.hover ? identifierAt(text, line, character) : undefined;
    const known = symbol && this.opened.session ? this.hovers.known(this.opened.session, symbol) : undefined;
    if (known === undefined) return undefined;
    if (known !== 'explainable') return { kind: 'plaintext', value: known.text };
    const target = encodeURIComponent(JSON.stringify([symbol]));
    return { kind: 'markdown', value: `[Explain with Longview](command:longview.explain?${target})` };
  }

  /** What a symbol does; from then on its hovers show it. */
  async explain(symbol: string, signal: AbortSignal): Promise<ExplainResult> {
    if (symbol.length > longestSymbol || !explainable.test(symbol))
      throw new LongviewError('invalid_argument', 'There is no symbol to explain.');
    return { text: this.opened.session && (await this.hovers.explain(this.opened.session, symbol, signal)) };
  }

  /** Where none is open yet; undefined where there is none to open. */
  private modelToOpen(): string | undefined {
    const { modelsFolder, extensionFolder } = this.options;
    try {
      return locateModel(this.opened.settings.modelPath, modelsFolder, extensionFolder);
    } catch {
      return undefined;
    }
  }

  async models(): Promise<ModelsResult> {
    const { modelsFolder, extensionFolder } = this.options;
    const current = this.opened.model?.path ?? this.modelToOpen();
    const installed = await installedModels(modelsFolder, extensionFolder, current);
    const place = (repository: string, file: string) => path.join(modelsFolder, repository, file);
    return {
      installed,
      noGpu: whyNoGpu(),
      catalog: await Promise.all(
        catalog.map(async (entry) => ({
          ...entry,
          installed: existsSync(place(entry.repository, entry.file)),
          part: await partOf(entry, modelsFolder),
        })),
      ),
    };
  }

  download(
    id: string,
    onProgress: (progress: DownloadProgress) => void,
    signal: AbortSignal,
  ): Promise<string> {
    const entry = catalog.find((candidate) => candidate.id === id);
    if (!entry) throw new LongviewError('invalid_argument', `There is no model ${id} in the catalogue.`);
    return downloadModel(entry, this.options.modelsFolder, { signal, onProgress: throttled(onProgress) });
  }

  /** Loads a model and remembers the choice; on failure, and where it is stopped, the former one stays. */
  async useModel(file: string, signal?: AbortSignal): Promise<void> {
    if (!path.isAbsolute(file) || !existsSync(file))
      throw new LongviewError('no_model', `There is no model at ${file}.`);
    await this.opened.showing(() =>
      this.opened.opening.run(() => this.opened.openedModel(file, signal), signal),
    );
    await chooseModel(this.options.modelsFolder, file);
  }

  async deleteModel(file: string): Promise<void> {
    if (file === this.opened.model?.path)
      throw new LongviewError('invalid_argument', 'This model is in use: choose another one first.');
    const { modelsFolder } = this.options;
    const parts = await Promise.all(catalog.map((entry) => partOf(entry, modelsFolder)));
    if (parts.some((part) => part?.path === file)) await deletePart(file);
    else await deleteModel(file, modelsFolder);
  }

  async savedStates(): Promise<CacheResult> {
    const { cacheFolder } = this.options;
    return { saved: cacheFolder === undefined ? [] : await savedWorkspaces(cacheFolder) };
  }

  async clearSavedStates(): Promise<ClearCacheResult> {
    const { cacheFolder } = this.options;
    return { freedBytes: cacheFolder === undefined ? 0 : await clearCache(cacheFolder) };
  }

  dispose(): Promise<void> {
    return this.opened.dispose();
  }
}
