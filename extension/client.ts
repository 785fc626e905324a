/** The server's process: started with the first need, restarted after a crash with back-off, and what can be asked of it. */
import { EventEmitter, Uri, workspace, type CancellationToken, type ExtensionContext } from 'vscode';
import {
  CloseAction,
  ErrorAction,
  LanguageClient,
  LSPErrorCodes,
  ProgressType,
  ResponseError,
  State,
  TransportKind,
} from 'vscode-languageclient/node';
import {
  methods,
  type AskParams,
  type AskProgress,
  type AskResult,
  type CacheResult,
  type CalibrateResult,
  type ClearCacheResult,
  type ContextResult,
  type DeleteModelParams,
  type DownloadParams,
  type DownloadProgress,
  type DownloadResult,
  type ExplainParams,
  type ExplainResult,
  type InitializationOptions,
  type ModelsResult,
  type PrefillResult,
  type SavedWorkspace,
  type Source,
  type SourcesParams,
  type SourcesResult,
  type Status,
  type UseModelParams,
} from '../server/protocol';
import { readSettings } from './config';

const askProgress = new ProgressType<AskProgress>();
const downloadProgress = new ProgressType<DownloadProgress>();

/** Crashes in a row after which it stays down until someone asks again. */
const maxCrashes = 5;
const calmMs = 60_000;

/** Whether a request failed because the user stopped it. */
export function isCancelled(error: unknown): boolean {
  return error instanceof ResponseError && error.code === LSPErrorCodes.RequestCancelled;
}

export class Server {
  private client: LanguageClient | undefined;
  private starting: Promise<LanguageClient> | undefined;
  private crashes = 0;
  private startedAt = 0;
  private stopping = false;
  private nextToken = 1;
  private readonly watcher = workspace.createFileSystemWatcher('**/*');
  private readonly statusChanged = new EventEmitter<Status>();
  /** The server is gone; the text says what happens now. */
  private readonly crashed = new EventEmitter<string>();
  private readonly filesChanged = new EventEmitter<void>();
  readonly onStatus = this.statusChanged.event;
  /** Files were saved, made or deleted, by whomever. */
  readonly onFilesChanged = this.filesChanged.event;

  constructor(private readonly context: ExtensionContext) {
    const changed = ({ path }: Uri) => {
      if (!path.includes('/.git/')) this.filesChanged.fire();
    };
    context.subscriptions.push(
      this.watcher,
      this.watcher.onDidCreate(changed),
      this.watcher.onDidChange(changed),
      this.watcher.onDidDelete(changed),
      this.statusChanged,
      this.crashed,
      this.filesChanged,
      workspace.onDidChangeConfiguration((event) => {
        const used = ['longview', 'files.encoding', 'files.associations'];
        if (used.some((section) => event.affectsConfiguration(section))) this.sendSettings();
      }),
      workspace.onDidGrantWorkspaceTrust(() => void this.client?.sendNotification(methods.trusted)),
      workspace.onDidChangeWorkspaceFolders(() => this.sendSettings()),
    );
  }

  private sendSettings(): void {
    void this.client?.sendNotification('workspace/didChangeConfiguration', { settings: readSettings() });
  }

  get isRunning(): boolean {
    return this.client?.state === State.Running;
  }

  /** Starts it where it does not run. */
  async running(): Promise<LanguageClient> {
    if (this.client?.state === State.Running) return this.client;
    this.starting ??= this.start().finally(() => (this.starting = undefined));
    return this.starting;
  }

  private async start(): Promise<LanguageClient> {
    await this.client?.dispose().catch(() => undefined);
    const { extensionUri, globalStorageUri } = this.context;
    const module = Uri.joinPath(extensionUri, 'dist', 'server.js').fsPath;
    const options: InitializationOptions = {
      settings: readSettings(),
      modelsFolder: Uri.joinPath(globalStorageUri, 'models').fsPath,
      extensionFolder: extensionUri.fsPath,
      cacheFolder: Uri.joinPath(globalStorageUri, 'cache').fsPath,
      trusted: workspace.isTrusted,
    };
    const client = new LanguageClient(
      'longview',
      'Longview',
      { module, transport: TransportKind.ipc },
      {
        documentSelector: [{ scheme: 'file' }],
        synchronize: { fileEvents: this.watcher },
        initializationOptions: options,
        // A hover's link may run this command and no other.
        markdown: { isTrusted: { enabledCommands: ['longview.explain'] } },
        errorHandler: {
          error: () => ({ action: ErrorAction.Continue }),
          closed: () => {
            this.comeBack();
            return { action: CloseAction.DoNotRestart, handled: true };
          },
        },
        middleware: {
          provideHover: (document, position, token, next) =>
            readSettings().hover ? next(document, position, token) : undefined,
        },
      },
    );
    client.onNotification(methods.status, (status: Status) => this.statusChanged.fire(status));
    this.client = client;
    this.startedAt = Date.now();
    await client.start();
    return client;
  }

  private comeBack(): void {
    if (this.stopping) return;
    this.crashes = Date.now() - this.startedAt > calmMs ? 1 : this.crashes + 1;
    if (this.crashes > maxCrashes) {
      this.sayGone('The engine stopped several times. Ask again to restart it; Output > Longview says more.');
      return;
    }
    const seconds = 2 ** (this.crashes - 1);
    this.sayGone(`The engine stopped unexpectedly and restarts in ${seconds} s.`);
    setTimeout(() => void this.running().catch(() => undefined), seconds * 1000);
  }

  private sayGone(message: string): void {
    // The library has logged by then that it will not restart it.
    this.client?.warn(message, undefined, false);
    this.statusChanged.fire({ health: 'error', phase: 'failed', message });
    this.crashed.fire(message);
  }

  /** Every request goes this way: what a dying server leaves open fails with what happens now, not with words of the wire. */
  private async answered<T>(work: (client: LanguageClient) => Promise<T>): Promise<T> {
    let listener = { dispose() {} };
    const crash = new Promise<never>((_, reject) => {
      listener = this.crashed.event((message) =>
        reject(new Error(`${message} Try again: nothing else is lost.`)),
      );
    });
    try {
      return await Promise.race([this.running().then(work), crash]);
    } finally {
      listener.dispose();
    }
  }

  private requestWithProgress<R, P>(
    method: string,
    params: object,
    type: ProgressType<P>,
    onProgress: (progress: P) => void,
    token: CancellationToken,
  ): Promise<R> {
    const partialResultToken = `longview-${this.nextToken++}`;
    return this.answered(async (client) => {
      const listener = client.onProgress(type, partialResultToken, onProgress);
      try {
        return await client.sendRequest<R>(method, { ...params, partialResultToken }, token);
      } finally {
        listener.dispose();
      }
    });
  }

  ask(
    params: AskParams,
    onProgress: (progress: AskProgress) => void,
    token: CancellationToken,
  ): Promise<AskResult> {
    return this.requestWithProgress(methods.ask, params, askProgress, onProgress, token);
  }

  /**
   * Which files the last answer of a conversation was read from; undefined where that is not known. Nobody waits for it: what goes
   * wrong is logged.
   */
  async sources(conversationId: string, token: CancellationToken): Promise<Source[] | undefined> {
    const { client } = this;
    if (client?.state !== State.Running) return undefined;
    const params: SourcesParams = { conversationId };
    try {
      return (
        await this.answered((running) => running.sendRequest<SourcesResult>(methods.sources, params, token))
      ).sources;
    } catch (error) {
      if (!isCancelled(error)) client.warn(`No sources: ${(error as Error).message}`, undefined, false);
      return undefined;
    }
  }

  prefill(token: CancellationToken): Promise<PrefillResult> {
    return this.answered((client) => client.sendRequest(methods.prefill, token));
  }

  calibrate(token: CancellationToken): Promise<CalibrateResult> {
    return this.answered((client) => client.sendRequest(methods.calibrate, token));
  }

  promptContents(): Promise<ContextResult> {
    return this.answered((client) => client.sendRequest(methods.context));
  }

  async savedStates(): Promise<SavedWorkspace[]> {
    const { saved } = await this.answered((client) => client.sendRequest<CacheResult>(methods.cacheList));
    return saved;
  }

  /** Returns the bytes that were freed. */
  async clearSavedStates(): Promise<number> {
    const { freedBytes } = await this.answered((client) =>
      client.sendRequest<ClearCacheResult>(methods.cacheClear),
    );
    return freedBytes;
  }

  models(): Promise<ModelsResult> {
    return this.answered((client) => client.sendRequest(methods.modelsList));
  }

  /** Undefined: the repository is not read yet, or does not know the symbol. */
  async explain(symbol: string, token: CancellationToken): Promise<string | undefined> {
    const params: ExplainParams = { symbol };
    const { text } = await this.answered((client) =>
      client.sendRequest<ExplainResult>(methods.explain, params, token),
    );
    return text;
  }

  async deleteModel(path: string): Promise<void> {
    const params: DeleteModelParams = { path };
    await this.answered((client) => client.sendRequest(methods.modelsDelete, params));
  }

  async useModel(path: string, token: CancellationToken): Promise<void> {
    const params: UseModelParams = { path };
    await this.answered((client) => client.sendRequest(methods.modelsUse, params, token));
  }

  async download(
    id: string,
    onProgress: (progress: DownloadProgress) => void,
    token: CancellationToken,
  ): Promise<string> {
    const params: DownloadParams = { id };
    const { path } = await this.requestWithProgress<DownloadResult, DownloadProgress>(
      methods.modelsDownload,
      params,
      downloadProgress,
      onProgress,
      token,
    );
    return path;
  }

  async stop(): Promise<void> {
    this.stopping = true;
    await this.client?.dispose();
  }
}
