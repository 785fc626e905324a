/** The backend without its wire: a model, a workspace, their session, and one status that says how they are. */
import { existsSync } from 'node:fs';
import path from 'node:path';
import { clearCache, savedWorkspaces } from './cache/storage';
import { WorkspaceCache } from './cache/workspaceCache';
import { HoverExplanations, identifierAt } from './answers/hover';
import { Refresher } from './answers/refresher';
import { overBudget, Session } from './answers/session';
import type { LoadProgress } from './engine/engine';
import { LongviewError } from './errors';
import { Lock, whileWanted } from './lock';
import { calibrate } from './models/calibrate';
import { catalog } from './models/catalog';
import { downloadModel } from './models/download';
import { deleteModel, installedModels } from './models/installed';
import { builtInModel, chooseModel, locateModel } from './models/locate';
import { openModel, type OpenModel } from './models/openModel';
import { calibratedFolder, profileFolders } from './models/profiles';
import type { PackedRepository } from './prompt/pack';
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
  Status,
} from './protocol';
import { loadingMessage, phaseMessage, prefillStatus, readingMessage, throttled } from './statusText';
import type { Root } from './workspace/scan';

export interface ServiceOptions {
  settings: Settings;
  roots: readonly Root[];
  modelsFolder: string;
  extensionFolder: string;
  cacheFolder?: string;
  trusted: boolean;
  /** Texts of open documents that are not saved, by absolute path. */
  unsavedTexts?: () => ReadonlyMap<string, string>;
  onStatus: (status: Status) => void;
  /** The GPU failed, and this process cannot use it any more. */
  onDeviceLost?: () => void;
}

/** An editor that closes gives its servers two seconds. */
const closingMs = 1500;
/** A question is begun so many times at most, where settings change while it waits for its first word. */
const maxAttempts = 4;

export class Service {
  private model: { path: string; open: OpenModel } | undefined;
  private session: Session | undefined;
  private refresher: Refresher | undefined;
  private settings: Settings;
  private roots: readonly Root[];
  private closed = false;
  /** Opening and closing of model and session. */
  private readonly opening = new Lock();
  private readonly hovers = new HoverExplanations();
  private status: Status = { health: 'ok', phase: 'starting', message: 'Starting' };

  constructor(private readonly options: ServiceOptions) {
    this.settings = options.settings;
    this.roots = options.roots;
  }

  // --- status -------------------------------------------------------------------------------------------------------

  private show(change: Partial<Status> & { phase: Phase; message: string }): void {
    const { prefill: _gone, ...rest } = this.status;
    this.status = { ...rest, health: 'ok', ...change };
    this.options.onStatus(this.status);
  }

  /** What changes beside the phases. */
  private showAside(change: Partial<Status>): void {
    this.status = { ...this.status, ...change };
    this.options.onStatus(this.status);
  }

  /** Files were saved, made or deleted. */
  filesChanged(): void {
    this.refresher?.poke();
  }

  private showReady(): void {
    const open = this.model?.open.engine;
    this.show({ phase: 'ready', message: open ? `${open.model.name} on ${open.device.name}` : 'Ready' });
  }

  /** Runs work that shows its phases; says so when it fails, and is ready again after it. */
  private async showing<T>(work: () => Promise<T>): Promise<T> {
    try {
      const result = await work();
      this.showReady();
      return result;
    } catch (error) {
      const known = error instanceof LongviewError ? error : undefined;
      if (known?.code === 'device_lost') this.options.onDeviceLost?.();
      if (known && (known.code === 'cancelled' || this.model)) {
        this.showReady();
        if (known.code !== 'cancelled')
          this.show({ phase: 'ready', health: 'warning', message: known.message });
      } else {
        this.show({ phase: 'failed', health: 'error', message: (error as Error).message });
      }
      throw error;
    }
  }

  // --- model and session --------------------------------------------------------------------------------------------

  /** Loads the model ahead of the first question. */
  async start(): Promise<void> {
    await this.showing(() => this.opening.run(() => this.openedModel()));
  }

  private async openedModel(file?: string): Promise<OpenModel> {
    const { modelsFolder, extensionFolder } = this.options;
    const wanted = file ?? locateModel(this.settings.modelPath, modelsFolder, extensionFolder);
    if (this.model?.path === wanted) return this.model.open;
    const former = this.model?.path;
    this.show({ phase: 'starting', message: `Loading ${path.basename(wanted)}` });
    const { device, gpuWeights, threads, cacheFormat: kvFormat, prefillMode, prefillTarget } = this.settings;
    const loading = throttled(({ done, total }: LoadProgress) =>
      this.show({ phase: 'starting', message: loadingMessage(path.basename(wanted), done, total) }),
    );
    const open = await openModel(
      wanted,
      {
        device,
        gpuWeights,
        threads,
        kvFormat,
        prefill: {
          mode: prefillMode,
          target: prefillTarget,
          profileFolders: profileFolders(modelsFolder, extensionFolder),
        },
      },
      loading,
      () => this.closeModel(),
    ).catch(async (error: unknown) => {
      if (former !== undefined && !this.model) await this.openedModel(former).catch(() => undefined);
      throw error;
    });
    this.model = { path: wanted, open };
    const { engine } = open;
    const builtIn = wanted === builtInModel(extensionFolder);
    this.status = {
      ...this.status,
      model: { name: engine.model.name, path: wanted, window: engine.window, builtIn },
      freshness: undefined,
      saved: undefined,
      device: [engine.device.name, engine.device.note].filter((text) => text !== '').join('. '),
      context: undefined,
    };
    return open;
  }

  private openedSession(signal: AbortSignal): Promise<Session> {
    const opening = this.opening.run(async () => {
      const model = this.model?.open ?? (await this.openedModel());
      const { include, exclude, maxFileKiB, maxAnswerTokens } = this.settings;
      this.session ??= await Session.create(model, this.roots, {
        include,
        exclude,
        maxFileBytes: maxFileKiB * 1024,
        maxAnswerTokens,
        gitHistory: this.options.trusted,
        cache: this.openedCache(model),
        unsavedTexts: this.options.unsavedTexts,
        rebasesInBackground: true,
      });
      this.refresher ??= new Refresher(this.session, {
        onFreshness: (freshness) => this.showAside({ freshness }),
        onFailure: (message) => this.showAside({ health: 'warning', message }),
      });
      return this.session;
    }, signal);
    return whileWanted(opening, signal).catch((error: unknown) => {
      // What is being opened is for the next question then.
      if (signal.aborted) void this.showing(() => opening).catch(() => undefined);
      throw error;
    });
  }

  /** Runs work on the session. Where new settings close that before `begun`, it is done again on the next one. */
  private async onSession<T>(
    signal: AbortSignal,
    work: (session: Session) => Promise<T>,
    begun: () => boolean = () => false,
  ): Promise<T> {
    for (let attempt = 1; ; attempt++) {
      const session = await this.openedSession(signal);
      try {
        return await work(session);
      } catch (error) {
        const stopped = error instanceof LongviewError && error.code === 'cancelled';
        if (!stopped || !session.isClosed || signal.aborted || this.closed) throw error;
        if (begun() || attempt === maxAttempts)
          throw new LongviewError(
            'settings_changed',
            'The settings or the model changed while this was answered. Ask again.',
            { cause: error },
          );
      }
    }
  }

  private openedCache({ engine }: OpenModel): WorkspaceCache | undefined {
    const { cacheFolder: root } = this.options;
    const maxBytes = this.settings.cacheMaxGiB * 2 ** 30;
    if (root === undefined || maxBytes === 0) return undefined;
    return new WorkspaceCache(engine, this.roots, {
      root,
      maxBytes,
      onChange: throttled((saved) => this.showAside({ saved })),
    });
  }

  /** What is being saved may take a moment, no more: what is written by then is kept. */
  private async closeSession(): Promise<void> {
    const { session, refresher } = this;
    this.session = this.refresher = undefined;
    await refresher?.dispose();
    await session?.dispose(AbortSignal.timeout(closingMs));
  }

  private async closeModel(): Promise<void> {
    await this.closeSession();
    const { model } = this;
    this.model = undefined;
    await model?.open.dispose();
  }

  /** New settings or folders: what they change is opened again with the next question. */
  change({ settings, roots }: { settings?: Settings; roots?: readonly Root[] }): Promise<void> {
    return this.opening.run(async () => {
      const before = this.settings;
      this.settings = settings ?? before;
      this.roots = roots ?? this.roots;
      const { hover: _a, ...was } = before;
      const { hover: _b, ...is } = this.settings;
      if (!roots && JSON.stringify(was) === JSON.stringify(is)) return;
      await this.closeSession();
      this.showAside({ freshness: undefined });
      const ofEngine = ({
        modelPath,
        device,
        gpuWeights,
        threads,
        cacheFormat,
        prefillMode,
        prefillTarget,
      }: Omit<Settings, 'hover'>) =>
        JSON.stringify([modelPath, device, gpuWeights, threads, cacheFormat, prefillMode, prefillTarget]);
      if (ofEngine(was) !== ofEngine(is)) await this.closeModel();
    });
  }

  // --- requests -----------------------------------------------------------------------------------------------------

  ask(params: AskParams, progress: (progress: AskProgress) => void, signal: AbortSignal): Promise<AskResult> {
    let spoken = false;
    const answer = async (session: Session) => {
      const phase = (name: Phase, message: string, prefill?: PrefillStatus) => {
        this.show({ phase: name, message, ...(prefill && { prefill }) });
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
        onText: (text) => {
          spoken = true;
          progress({ kind: 'text', text });
        },
      });
      this.showRead(session);
      return result;
    };
    return this.showing(() => this.onSession(signal, answer, () => spoken));
  }

  prefill(signal: AbortSignal): Promise<PrefillResult> {
    const read = async (session: Session) => {
      const { tokens, reused, seconds } = await session.prefill({
        signal,
        onPhase: (name, detail) => this.show({ phase: name, message: phaseMessage(name, detail) }),
        onPacked: (repository) => this.showPacked(session, repository),
        onProgress: throttled((reading) =>
          this.show({ phase: 'reading', message: readingMessage(reading), prefill: prefillStatus(reading) }),
        ),
      });
      this.showRead(session);
      return { tokens, reusedTokens: reused, seconds };
    };
    return this.showing(() => this.onSession(signal, read));
  }

  /** What each head may leave out, for the present target. The session closes first: its pages make room for the text. */
  calibrate(signal: AbortSignal): Promise<CalibrateResult> {
    return this.showing(() =>
      this.opening.run(async () => {
        const { prefillMode, prefillTarget: target, include, exclude, maxFileKiB } = this.settings;
        if (prefillMode === 'dense' || target === 'exact')
          throw new LongviewError(
            'invalid_argument',
            'Repositories are read densely here, which needs no calibration: set longview.prefill.mode to auto and longview.prefill.target to balanced or fast first.',
          );
        const model = await this.openedModel();
        await this.closeSession();
        const { trusted: gitHistory, modelsFolder } = this.options;
        const scan = { include, exclude, maxFileBytes: maxFileKiB * 1024, gitHistory };
        const start = performance.now();
        const [profile] = await calibrate(model, {
          source: { roots: this.roots, scan },
          folder: calibratedFolder(modelsFolder),
          targets: [prefillMode === 'minference' ? prefillMode : target],
          signal,
          onProgress: throttled(({ done, total }) => {
            const tokensPerSecond = (1000 * done) / (performance.now() - start);
            const message = `Calibrating: ${done.toLocaleString('en')} of ${total.toLocaleString('en')} tokens`;
            this.show({
              phase: 'reading',
              message,
              prefill: prefillStatus({ done, total, tokensPerSecond }),
            });
          }),
        });
        if (!profile) throw new LongviewError('internal', 'The calibration gave no profile.');
        await this.closeModel();
        await this.openedModel();
        return { density: profile.density, uncalibratedDensity: profile.uncalibratedDensity };
      }, signal),
    );
  }

  private showRead(session: Session): void {
    this.status = { ...this.status, freshness: { state: 'current', changedFiles: 0 } };
    // When it is due, or not to be idle while someone asks.
    if (session.rebaseWorthwhile) this.refresher?.poke();
  }

  private showPacked(session: Session, repository: PackedRepository) {
    const context = {
      files: repository.files.length,
      skipped: overBudget(repository),
      tokens: repository.tokens.length,
      window: session.model.engine.window,
    };
    this.status = { ...this.status, context };
    return context;
  }

  context(signal: AbortSignal): Promise<ContextResult> {
    return this.onSession(signal, async (session) => {
      const result = await session.context(signal);
      if (session.repository) this.showPacked(session, session.repository);
      this.options.onStatus(this.status);
      return result;
    });
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
    const symbol = this.settings.hover ? identifierAt(text, line, character) : undefined;
    const known = symbol && this.session ? this.hovers.known(this.session, symbol) : undefined;
    if (known === undefined) return undefined;
    if (known !== 'explainable') return { kind: 'plaintext', value: known.text };
    const target = encodeURIComponent(JSON.stringify([symbol]));
    return { kind: 'markdown', value: `[Explain with Longview](command:longview.explain?${target})` };
  }

  /** What a symbol does; from then on its hovers show it. */
  async explain(symbol: string, signal: AbortSignal): Promise<ExplainResult> {
    if (!/^[\w$]{1,200}$/.test(symbol))
      throw new LongviewError('invalid_argument', 'There is no symbol to explain.');
    return { text: this.session && (await this.hovers.explain(this.session, symbol, signal)) };
  }

  /** Where none is open yet; undefined where there is none to open. */
  private modelToOpen(): string | undefined {
    const { modelsFolder, extensionFolder } = this.options;
    try {
      return locateModel(this.settings.modelPath, modelsFolder, extensionFolder);
    } catch {
      return undefined;
    }
  }

  async models(): Promise<ModelsResult> {
    const { modelsFolder, extensionFolder } = this.options;
    const current = this.model?.path ?? this.modelToOpen();
    const installed = await installedModels(modelsFolder, extensionFolder, current);
    const place = (repository: string, file: string) => path.join(modelsFolder, repository, file);
    return {
      installed,
      catalog: catalog.map((entry) => ({
        ...entry,
        installed: existsSync(place(entry.repository, entry.file)),
      })),
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

  /** Loads a model and remembers the choice; on failure the former one stays. */
  async useModel(file: string): Promise<void> {
    if (!path.isAbsolute(file) || !existsSync(file))
      throw new LongviewError('no_model', `There is no model at ${file}.`);
    await this.showing(() => this.opening.run(() => this.openedModel(file)));
    chooseModel(this.options.modelsFolder, file);
  }

  async deleteModel(file: string): Promise<void> {
    if (file === this.model?.path)
      throw new LongviewError('invalid_argument', 'This model is in use: choose another one first.');
    await deleteModel(file, this.options.modelsFolder);
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
    this.closed = true;
    return this.opening.run(() => this.closeModel());
  }
}
