/** The real server as the editor runs it: a child process, LSP over Node's IPC. For evaluations and benches. */
import { fork, type ChildProcess } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { basename, join, resolve } from 'node:path';
import { pathToFileURL } from 'node:url';
import {
  CancellationTokenSource,
  createProtocolConnection,
  IPCMessageReader,
  IPCMessageWriter,
  ProgressType,
  type ProtocolConnection,
} from 'vscode-languageserver/node';
import {
  methods,
  type AskParams,
  type AskProgress,
  type AskResult,
  type ContextResult,
  type DeleteModelParams,
  type ExplainParams,
  type ExplainResult,
  type InitializationOptions,
  type ModelsResult,
  type PrefillResult,
  type Settings,
  type SourcesParams,
  type SourcesResult,
  type Status,
  type UseModelParams,
} from '../../server/protocol';
import { cacheFolder } from './cacheFolder';
import { plainSettings } from './settings';

export const projectRoot = resolve(import.meta.dirname, '../..');

const askProgress = new ProgressType<AskProgress>();

export interface Answer extends AskResult {
  /** Seconds from sending the question to the first text, as the client saw it. */
  firstTextSeconds: number;
  /** Seconds from sending the question to the whole answer. */
  seconds: number;
}

export class ServerClient {
  private constructor(
    private readonly child: ChildProcess,
    private readonly connection: ProtocolConnection,
  ) {}

  /** Starts a server on one folder. Throws where dist/ is not built or the server refuses. */
  static async start(
    folder: string,
    settings: Partial<Settings>,
    onStatus: (status: Status) => void = () => {},
    /** Absent: nothing is kept on disk, so that every reading is a first one. */
    savedStates?: string,
  ): Promise<ServerClient> {
    const entry = join(projectRoot, 'dist', 'server.js');
    if (!existsSync(entry)) throw new Error('dist/server.js is missing. Run `npm run build` first.');
    const child = fork(entry, ['--node-ipc'], { stdio: ['ignore', 'inherit', 'inherit', 'ipc'] });
    const connection = createProtocolConnection(new IPCMessageReader(child), new IPCMessageWriter(child));
    connection.onNotification(methods.status, onStatus);
    connection.listen();
    // A server that dies would leave its requests without an answer.
    child.once('exit', () => connection.dispose());

    const initializationOptions: InitializationOptions = {
      settings: { ...plainSettings, ...settings },
      modelsFolder: cacheFolder('models'),
      extensionFolder: projectRoot,
      cacheFolder: savedStates,
      trusted: true,
    };
    await connection.sendRequest('initialize', {
      processId: process.pid,
      rootUri: null,
      capabilities: { window: { workDoneProgress: true }, workspace: { workspaceFolders: true } },
      workspaceFolders: [{ uri: pathToFileURL(folder).href, name: basename(folder) }],
      initializationOptions,
    });
    await connection.sendNotification('initialized', {});
    return new ServerClient(child, connection);
  }

  context(): Promise<ContextResult> {
    return this.connection.sendRequest(methods.context);
  }

  prefill(): Promise<PrefillResult> {
    return this.connection.sendRequest(methods.prefill);
  }

  models(): Promise<ModelsResult> {
    return this.connection.sendRequest(methods.modelsList);
  }

  useModel(path: string): Promise<void> {
    return this.connection.sendRequest(methods.modelsUse, { path } satisfies UseModelParams);
  }

  deleteModel(path: string): Promise<void> {
    return this.connection.sendRequest(methods.modelsDelete, { path } satisfies DeleteModelParams);
  }

  explain(symbol: string): Promise<ExplainResult> {
    return this.connection.sendRequest(methods.explain, { symbol } satisfies ExplainParams);
  }

  /** Text of the hover at a place, from 0; undefined where there is none. */
  async hover(file: string, line: number, character: number): Promise<string | undefined> {
    const hover = await this.connection.sendRequest<{ contents: { value: string } } | null>(
      'textDocument/hover',
      { textDocument: { uri: pathToFileURL(file).href }, position: { line, character } },
    );
    return hover?.contents.value;
  }

  /** Asks in a new conversation, or in the given one. */
  async ask(
    question: string,
    options: {
      conversationId?: string;
      onProgress?: (progress: AskProgress) => void;
      /** Cancels the request when the first text has come. */
      stopAfterText?: boolean;
    } = {},
  ): Promise<Answer> {
    const token = `ask-${nextToken++}`;
    const started = performance.now();
    let firstText: number | undefined;
    const stop = new CancellationTokenSource();
    const listener = this.connection.onProgress(askProgress, token, (progress) => {
      if (progress.kind === 'text') firstText ??= performance.now();
      if (progress.kind === 'text' && options.stopAfterText) stop.cancel();
      options.onProgress?.(progress);
    });
    try {
      const { conversationId } = options;
      const params: AskParams = { question, conversationId, partialResultToken: token };
      const result = await this.connection.sendRequest<AskResult>(methods.ask, params, stop.token);
      const ended = performance.now();
      return {
        ...result,
        firstTextSeconds: ((firstText ?? ended) - started) / 1000,
        seconds: (ended - started) / 1000,
      };
    } finally {
      listener.dispose();
    }
  }

  /** Which files the last answer of a conversation was read from. */
  sources(conversationId: string): Promise<SourcesResult> {
    return this.connection.sendRequest(methods.sources, { conversationId } satisfies SourcesParams);
  }

  /** Opens a file with a text that may be another one than is saved. */
  async open(file: string | URL, text: string): Promise<void> {
    const uri = typeof file === 'string' ? pathToFileURL(file).href : file.href;
    const opened = { uri, languageId: 'plaintext', version: 1, text };
    await this.connection.sendNotification('textDocument/didOpen', { textDocument: opened });
  }

  async close(file: string): Promise<void> {
    const textDocument = { uri: pathToFileURL(file).href };
    await this.connection.sendNotification('textDocument/didClose', { textDocument });
  }

  /** Opens a file and types another text into it, without saving. */
  async typeInto(file: string, text: string): Promise<void> {
    const uri = pathToFileURL(file).href;
    await this.open(file, readFileSync(file, 'utf8'));
    await this.connection.sendNotification('textDocument/didChange', {
      textDocument: { uri, version: 2 },
      contentChanges: [{ text }],
    });
  }

  /** Opens a folder beside the others. */
  async addFolder(uri: string, name: string): Promise<void> {
    const event = { added: [{ uri, name }], removed: [] };
    await this.connection.sendNotification('workspace/didChangeWorkspaceFolders', { event });
  }

  /** Tells it that files were saved, as an editor's watcher does. */
  async filesChanged(...files: string[]): Promise<void> {
    const changes = files.map((file) => ({ uri: pathToFileURL(file).href, type: 2 }));
    await this.connection.sendNotification('workspace/didChangeWatchedFiles', { changes });
  }

  /** Ends the process as a crash would. */
  async kill(): Promise<void> {
    const exited = new Promise<void>((done) => this.child.once('exit', () => done()));
    this.child.kill('SIGKILL');
    await exited;
  }

  /** Is gone as an editor that crashed; the server's exit code. */
  async vanish(): Promise<number | null> {
    const exited = new Promise<number | null>((done) => this.child.once('exit', done));
    this.child.disconnect();
    return exited;
  }

  /** Of the server, for /proc. */
  get processId(): number | undefined {
    return this.child.pid;
  }

  async stop(): Promise<void> {
    const exited = new Promise<void>((done) => this.child.once('exit', () => done()));
    await this.connection.sendRequest('shutdown');
    await this.connection.sendNotification('exit');
    await exited;
  }
}

let nextToken = 1;
