/** What a service has open: a model and, of the present folders and settings, a session; each is opened when it is first needed. */
import path from 'node:path';
import { WorkspaceCache } from './cache/workspaceCache';
import { Refresher } from './answers/refresher';
import { Session } from './answers/session';
import type { LoadProgress } from './engine/engine';
import { LongviewError } from './errors';
import { Lock, whileWanted } from './lock';
import { builtInModel, locateModel } from './models/locate';
import { openModel, type OpenModel } from './models/openModel';
import { profileFolders } from './models/profiles';
import type { Settings, Status } from './protocol';
import { StatusBoard } from './statusBoard';
import { loadingMessage, throttled } from './statusText';
import type { Root } from './workspace/scan';

export interface ServiceOptions {
  settings: Settings;
  roots: readonly Root[];
  modelsFolder: string;
  extensionFolder: string;
  cacheFolder?: string;
  trusted: boolean;
  /** Texts of open documents that are not saved, by the keys of their paths. */
  unsavedTexts?: () => ReadonlyMap<string, string>;
  onStatus: (status: Status) => void;
  /** The GPU failed, and this process cannot use it any more. */
  onDeviceLost?: () => void;
}

/** What the engine is opened with; another value of one opens it again. */
const engineSettings = [
  'modelPath',
  'device',
  'gpuWeights',
  'threads',
  'cacheFormat',
  'windowStretch',
  'prefillMode',
  'prefillTarget',
] as const;

/** An editor that closes gives its servers two seconds. */
const closingMs = 1500;
/** A question is begun so many times at most, where settings change while it waits for its first word. */
const maxAttempts = 4;

export class Opened {
  model: { path: string; open: OpenModel } | undefined;
  session: Session | undefined;
  refresher: Refresher | undefined;
  settings: Settings;
  roots: readonly Root[];
  trusted: boolean;
  readonly board: StatusBoard;
  /** Opening and closing of model and session. */
  readonly opening = new Lock();
  private closed = false;

  constructor(private readonly options: ServiceOptions) {
    this.settings = options.settings;
    this.roots = options.roots;
    this.trusted = options.trusted;
    this.board = new StatusBoard(options.onStatus);
  }

  private get readyMessage(): string {
    const open = this.model?.open.engine;
    return open ? `${open.model.name} on ${open.device.name}` : 'Ready';
  }

  showReady(): void {
    this.board.show({ phase: 'ready', message: this.readyMessage });
  }

  private showFailed(error: unknown): void {
    this.board.show({ phase: 'failed', health: 'error', message: (error as Error).message });
  }

  /** Runs work that shows its phases; says so when it fails, and is ready again after it. */
  async showing<T>(work: () => Promise<T>): Promise<T> {
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
          this.board.show({ phase: 'ready', health: 'warning', message: known.message });
      } else {
        this.showFailed(error);
      }
      throw error;
    }
  }

  /** Loads the model ahead of the first question. */
  async start(): Promise<void> {
    await this.showing(() => this.opening.run(() => this.openedModel()));
  }

  private locatedModel(): string {
    const { modelsFolder, extensionFolder } = this.options;
    try {
      return locateModel(this.settings.modelPath, modelsFolder, extensionFolder);
    } catch (error) {
      if (!this.model) this.showFailed(error);
      throw error;
    }
  }

  /** Stopped, it is the former model's again. */
  async openedModel(file?: string, signal?: AbortSignal): Promise<OpenModel> {
    const { modelsFolder, extensionFolder } = this.options;
    const wanted = file ?? this.locatedModel();
    if (this.model?.path === wanted) return this.model.open;
    const former = this.model?.path;
    this.board.show({ phase: 'starting', message: `Loading ${path.basename(wanted)}` });
    const { device, gpuWeights, threads, cacheFormat: kvFormat } = this.settings;
    const { windowStretch: stretch, prefillMode, prefillTarget } = this.settings;
    const onLoad = throttled(({ done, total }: LoadProgress) =>
      this.board.show({ phase: 'starting', message: loadingMessage(path.basename(wanted), done, total) }),
    );
    const open = await openModel(
      wanted,
      {
        device,
        gpuWeights,
        threads,
        kvFormat,
        stretch,
        prefill: {
          mode: prefillMode,
          target: prefillTarget,
          profileFolders: profileFolders(modelsFolder, extensionFolder),
        },
      },
      { onLoad, signal, makeRoom: () => this.closeModel() },
    ).catch(async (error: unknown) => {
      if (former !== undefined && !this.model) await this.openedModel(former).catch(() => undefined);
      if (!this.model && (error as LongviewError).code !== 'cancelled') this.showFailed(error);
      throw error;
    });
    this.model = { path: wanted, open };
    const { engine } = open;
    const builtIn = wanted === builtInModel(extensionFolder);
    this.board.note({
      model: { name: engine.model.name, path: wanted, window: engine.window, builtIn },
      freshness: undefined,
      saved: undefined,
      device: [engine.device.name, engine.device.note].filter((text) => text !== '').join('. '),
      context: undefined,
    });
    // Whoever opens it: what only looks at the files shows no phase of its own.
    this.showReady();
    return open;
  }

  private openedSession(signal: AbortSignal): Promise<Session> {
    const opening = this.opening.run(async () => {
      const model = this.model?.open ?? (await this.openedModel());
      const { include, exclude, encodings, maxFileKiB, maxAnswerTokens } = this.settings;
      this.session ??= await Session.create(model, this.roots, {
        include,
        exclude,
        encodings,
        maxFileBytes: maxFileKiB * 1024,
        maxAnswerTokens,
        gitHistory: this.trusted,
        cache: this.openedCache(model),
        unsavedTexts: this.options.unsavedTexts,
        rebasesInBackground: true,
      });
      this.refresher ??= this.newRefresher(this.session);
      return this.session;
    }, signal);
    return whileWanted(opening, signal).catch((error: unknown) => {
      // What is being opened is for the next question then.
      if (signal.aborted) void this.showing(() => opening).catch(() => undefined);
      throw error;
    });
  }

  private newRefresher(session: Session): Refresher {
    let failure: string | undefined;
    return new Refresher(session, {
      onFreshness: (freshness) => {
        // What failed the last time did not now.
        const mended = freshness.state === 'current' && this.board.message === failure;
        this.board.showAside({
          freshness,
          ...(mended && { health: 'ok', message: this.readyMessage }),
        });
      },
      onFailure: (message) => {
        failure = message;
        this.board.showAside({ health: 'warning', message });
      },
    });
  }

  /** Runs work on the session. Where new settings close that before `begun`, it is done again on the next one. */
  async onSession<T>(
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
    const maxBytes = Math.floor(this.settings.cacheMaxGiB * 2 ** 30);
    if (root === undefined || maxBytes === 0) return undefined;
    return new WorkspaceCache(engine, this.roots, {
      root,
      maxBytes,
      onChange: (saved) => this.board.showAside({ saved }),
    });
  }

  /** What is being saved may take a moment, no more: what is written by then is kept. */
  async closeSession(): Promise<void> {
    const { session, refresher } = this;
    this.session = this.refresher = undefined;
    await refresher?.dispose();
    await session?.dispose(AbortSignal.timeout(closingMs));
  }

  async closeModel(): Promise<void> {
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
      const ofEngine = (settings: Omit<Settings, 'hover'>) =>
        JSON.stringify(engineSettings.map((name) => settings[name]));
      const another = ofEngine(was) !== ofEngine(is);
      if (another) await this.closeModel();
      // What was counted was the other model's: a panel that is open asks again, and so opens this one, or is told why not.
      this.board.showAside({ freshness: undefined, ...(another && { context: undefined }) });
    });
  }

  trust(): Promise<void> {
    return this.opening.run(() => {
      this.trusted = true;
      this.session?.trust();
      return Promise.resolve();
    });
  }

  dispose(): Promise<void> {
    this.closed = true;
    return this.opening.run(() => this.closeModel());
  }
}
