/** The language server: wires the protocol's requests to the service; nothing else. Started with --node-ipc. */
import { readFileSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import {
  createConnection,
  LSPErrorCodes,
  ProgressType,
  ProposedFeatures,
  ResponseError,
  TextDocuments,
  TextDocumentSyncKind,
  type CancellationToken,
  type InitializeResult,
} from 'vscode-languageserver/node';
import { TextDocument } from 'vscode-languageserver-textdocument';
import { LongviewError } from './errors';
import { nameKey } from './platform/fileNames';
import {
  methods,
  type AskParams,
  type AskProgress,
  type DeleteModelParams,
  type DownloadParams,
  type DownloadProgress,
  type ErrorData,
  type ExplainParams,
  type InitializationOptions,
  type Settings,
  type SourcesParams,
  type Status,
  type UseModelParams,
} from './protocol';
import { Service } from './service';
import { namedEncodings, shownTexts, withLineFeeds } from './workspace/encoding';
import type { Root } from './workspace/scan';

const connection = createConnection(ProposedFeatures.all);
const documents = new TextDocuments(TextDocument);
/** Versions of open documents that are as the file; others are not saved. */
const savedVersions = new Map<string, number>();
documents.onDidOpen(({ document }) => {
  if (isAsSaved(document)) savedVersions.set(document.uri, document.version);
});
documents.onDidSave(({ document }) => savedVersions.set(document.uri, document.version));
documents.onDidClose(({ document }) => savedVersions.delete(document.uri));
const progressType = new ProgressType<AskProgress | DownloadProgress>();
let service: Service | undefined;
let roots: Root[] = [];
let encodingOf = namedEncodings();

/** A document may have been edited before this process began. Where its file cannot be compared, it counts as saved. */
function isAsSaved(document: TextDocument): boolean {
  try {
    const file = fileURLToPath(document.uri);
    const shown = shownTexts(readFileSync(file), encodingOf(file));
    return shown.length === 0 || shown.includes(withLineFeeds(document.getText().replace(/^\ufeff/, '')));
  } catch {
    return true;
  }
}

/** The URI itself for what is on no disk of this machine, as `file://nas/share`. */
function pathOf(uri: string): string {
  try {
    return fileURLToPath(uri);
  } catch {
    return uri;
  }
}

function toRoots(folders: readonly { uri: string; name: string }[]): Root[] {
  return folders.map(({ uri, name }) => ({ name, folder: pathOf(uri) }));
}

function unsavedTexts(): Map<string, string> {
  const unsaved = documents.all().filter(({ uri, version }) => savedVersions.get(uri) !== version);
  return new Map(unsaved.map((document) => [nameKey(pathOf(document.uri)), document.getText()]));
}

/** Runs a request on the service; errors go out with their code and sentence. */
async function answer<T>(
  token: CancellationToken,
  work: (service: Service, signal: AbortSignal) => Promise<T>,
) {
  const abort = new AbortController();
  if (token.isCancellationRequested) abort.abort();
  token.onCancellationRequested(() => abort.abort());
  try {
    if (!service) throw new LongviewError('internal', 'The server was not initialised.');
    return await work(service, abort.signal);
  } catch (error) {
    const { code, message } =
      error instanceof LongviewError ? error : new LongviewError('internal', (error as Error).message);
    if (code === 'internal') connection.console.error((error as Error).stack ?? message);
    const data: ErrorData = { code };
    const kind = code === 'cancelled' ? LSPErrorCodes.RequestCancelled : LSPErrorCodes.RequestFailed;
    throw new ResponseError(kind, message, data);
  }
}

function reporter<T extends AskProgress | DownloadProgress>(token: string | number | undefined) {
  return (value: T) => {
    if (token !== undefined) void connection.sendProgress(progressType, token, value);
  };
}

connection.onInitialize(({ workspaceFolders, initializationOptions }): InitializeResult => {
  const { settings, modelsFolder, extensionFolder, cacheFolder, trusted } =
    initializationOptions as InitializationOptions;
  roots = toRoots(workspaceFolders ?? []);
  encodingOf = namedEncodings(settings.encodings);
  service = new Service({
    settings,
    roots,
    modelsFolder,
    extensionFolder,
    cacheFolder,
    trusted,
    unsavedTexts,
    onStatus: (status: Status) => void connection.sendNotification(methods.status, status),
    // The editor starts the server again. What says why goes out first.
    onDeviceLost: () => setTimeout(() => process.exit(1), 500),
  });
  return {
    capabilities: {
      textDocumentSync: { openClose: true, change: TextDocumentSyncKind.Incremental, save: true },
      hoverProvider: true,
      workspace: { workspaceFolders: { supported: true, changeNotifications: true } },
    },
  };
});

connection.onInitialized(() => {
  connection.workspace.onDidChangeWorkspaceFolders(({ added, removed }) => {
    const gone = new Set(toRoots(removed).map(({ folder }) => folder));
    roots = [...roots.filter(({ folder }) => !gone.has(folder)), ...toRoots(added)];
    void service?.change({ roots });
  });
  // Its failure is the status; the next question says it again.
  service?.start().catch(() => undefined);
});

connection.onDidChangeConfiguration(({ settings }) => {
  encodingOf = namedEncodings((settings as Settings).encodings);
  void service?.change({ settings: settings as Settings });
});

connection.onNotification(methods.trusted, () => void service?.trust());

connection.onDidChangeWatchedFiles(({ changes }) => {
  if (changes.some(({ uri }) => !uri.includes('/.git/'))) service?.filesChanged();
});

connection.onRequest(methods.ask, (params: AskParams, token: CancellationToken) =>
  answer(token, (service, signal) =>
    service.ask(params, reporter<AskProgress>(params.partialResultToken), signal),
  ),
);
connection.onRequest(methods.sources, (params: SourcesParams, token: CancellationToken) =>
  answer(token, (service, signal) => service.sources(params.conversationId, signal)),
);
connection.onRequest(methods.prefill, (token: CancellationToken) =>
  answer(token, (service, signal) => service.prefill(signal)),
);
connection.onRequest(methods.calibrate, (token: CancellationToken) =>
  answer(token, (service, signal) => service.calibrate(signal)),
);
connection.onRequest(methods.context, (token: CancellationToken) =>
  answer(token, (service, signal) => service.context(signal)),
);
connection.onRequest(methods.modelsList, (token: CancellationToken) =>
  answer(token, (service) => service.models()),
);
connection.onRequest(methods.modelsDownload, (params: DownloadParams, token: CancellationToken) =>
  answer(token, async (service, signal) => ({
    path: await service.download(params.id, reporter<DownloadProgress>(params.partialResultToken), signal),
  })),
);
connection.onRequest(methods.modelsUse, (params: UseModelParams, token: CancellationToken) =>
  answer(token, (service, signal) => service.useModel(params.path, signal)),
);
connection.onRequest(methods.modelsDelete, (params: DeleteModelParams, token: CancellationToken) =>
  answer(token, (service) => service.deleteModel(params.path)),
);
connection.onRequest(methods.explain, (params: ExplainParams, token: CancellationToken) =>
  answer(token, (service, signal) => service.explain(params.symbol, signal)),
);

connection.onRequest(methods.cacheList, (token: CancellationToken) =>
  answer(token, (service) => service.savedStates()),
);
connection.onRequest(methods.cacheClear, (token: CancellationToken) =>
  answer(token, (service) => service.clearSavedStates()),
);

connection.onHover(({ textDocument, position }, token) =>
  answer(token, async (service) => {
    const text =
      documents.get(textDocument.uri)?.getText() ??
      (await readFile(fileURLToPath(textDocument.uri), 'utf8').catch(() => ''));
    const contents = service.hover(text, position.line, position.character);
    return contents === undefined ? null : { contents };
  }),
);

connection.onShutdown(() => service?.dispose());
// An editor that crashed asks for no shutdown: what was read is kept all the same, and nothing goes on.
process.once('disconnect', () => void Promise.resolve(service?.dispose()).finally(() => process.exit(1)));
documents.listen(connection);
connection.listen();
