/**
 * Every message between the extension and the server, typed and documented. Transport: LSP (JSON-RPC over IPC).
 * What the extension and its panel say to each other: extension/chat/messages.ts.
 *
 * Errors: a failed request answers with a JSON-RPC error whose `data` is ErrorData: a stable code, and in `message` a
 * sentence that a user can act on. Cancelling a request ($/cancelRequest) ends it with code `cancelled`; what was
 * pre-filled until then is kept.
 */

/** JSON-RPC `error.data`. Codes: server/errors.ts. */
export interface ErrorData {
  code: string;
}

// --- initialisation -------------------------------------------------------------------------------------------------

/** `initializationOptions` of LSP's initialize: extension -> server. */
export interface InitializationOptions {
  settings: Settings;
  /** Folder for downloaded models. */
  modelsFolder: string;
  /** Folder of the extension: holds media/model with the built-in model. */
  extensionFolder: string;
  /** Folder for saved states; absent: nothing is kept on disk. */
  cacheFolder?: string;
  /** False in an untrusted workspace: git, which reads a folder's configuration, is not run there. */
  trusted: boolean;
}

/** `longview/trusted`: extension -> server, notification without parameters. The workspace is trusted from now on. */

/** The `longview.*` settings that the server uses; sent again whole by workspace/didChangeConfiguration. */
export interface Settings {
  /** Absolute path of a model (.gguf, .safetensors or a folder); empty: the chosen or built-in one. */
  modelPath: string;
  device: 'auto' | 'cuda' | 'cpu';
  /** Weights of layers on a GPU: server/engine/engine.ts. */
  gpuWeights: 'auto' | 'fp8';
  threads: number;
  /** How many times its window the model is given, 1, 2 or 4: server/engine/engine.ts. */
  windowStretch: number;
  /** How a repository is read: server/engine/engine.ts, PrefillOptions. */
  prefillMode: 'auto' | 'adaptive' | 'minference' | 'dense';
  prefillTarget: 'fast' | 'balanced' | 'exact';
  /** Globs (gitignore syntax) that are taken in addition to / left out of the default selection. */
  include: string[];
  exclude: string[];
  /** Files larger than this are left out, in KiB. */
  maxFileKiB: number;
  /** What files are in that are not UTF-8; the first that fits a file counts. */
  encodings: FileEncoding[];
  hover: boolean;
  maxAnswerTokens: number;
  /** Bytes of all saved states together, in GiB; 0: nothing is kept on disk. */
  cacheMaxGiB: number;
  /** Of the KV state: server/engine/engine.ts, EngineOptions.kvFormat. */
  cacheFormat: 'auto' | 'bf16' | 'q8' | 'q4' | 'fp8';
}

/** What the editor's `files.encoding` says, by its names. */
export interface FileEncoding {
  encoding: string;
  /** Absolute; absent: everywhere. */
  folder?: string;
  /** Of file names, as a language has them: `.pas`, `makefile`; the case of letters does not count. Absent: all. */
  endings?: string[];
}

// --- status: server -> extension, notification ------------------------------------------------------------------------

export type Phase =
  | 'starting' //  loading the model
  | 'scanning' //  walking the workspace
  | 'tokenizing' // packing and counting
  | 'reading' //   pre-filling: `prefill` is set where it is the repository
  | 'answering'
  | 'ready'
  | 'failed';

export interface PrefillStatus {
  /** Tokens of the prompt held, of `total`. */
  done: number;
  total: number;
  tokensPerSecond: number;
  /** Absent until the rate is known. */
  etaSeconds?: number;
}

/** Pushed whole, whenever something changes (at most ten times a second). */
export interface Status {
  health: 'ok' | 'warning' | 'error';
  phase: Phase;
  /** One line for people. */
  message: string;
  /** Absent until a model is loaded. */
  model?: ModelStatus;
  /** DeviceInfo.name. */
  device?: string;
  /** Absent until the workspace was packed. */
  context?: { files: number; tokens: number; window: number; skipped: number };
  prefill?: PrefillStatus;
  /** How what was read stands to the files; absent until the repository was read. */
  freshness?: Freshness;
  /** Absent where nothing is kept on disk. */
  saved?: SavedState;
}

export interface Freshness {
  /** `changed`: files were saved since they were read. `refreshing`: they are being read now. */
  state: 'current' | 'changed' | 'refreshing';
  changedFiles: number;
}

/** What of the repository's state is on disk. */
export interface SavedState {
  /** Tokens saved, of `total`. */
  tokens: number;
  total: number;
  /** Why something is missing, a sentence. */
  note?: string;
  /** What was read last could not be saved: without the note's cause mended, the next start reads it again. */
  failed?: boolean;
}

export interface ModelStatus {
  name: string;
  path: string;
  window: number;
  /** The built-in model: the panel says once what it is good for. */
  builtIn: boolean;
}

// --- questions --------------------------------------------------------------------------------------------------------

/** `longview/ask`: extension -> server, request. Streams AskProgress by $/progress with `partialResultToken`. */
export interface AskParams {
  question: string;
  /** Absent: a new conversation. Unknown ids (a restarted server): the turns given in `history` are pre-filled again. */
  conversationId?: string;
  /** Earlier turns, oldest first; used only when the server does not know the conversation. */
  history?: { question: string; answer: string }[];
  partialResultToken?: string | number;
}

export type AskProgress =
  | { kind: 'phase'; phase: Phase; message: string; prefill?: PrefillStatus }
  /** Files in the prompt, once it is packed. */
  | { kind: 'context'; files: number; skipped: number; tokens: number; window: number }
  /** Text to append to the answer. */
  | { kind: 'text'; text: string }
  /** The places in what had been said of an answer that is stopped or fails; just before the request fails. */
  | { kind: 'places'; citations: Citation[]; missing: MissingPlace[] };

export interface Span {
  /** 1-based, inclusive. */
  startLine: number;
  endLine: number;
}

/** A place that the answer rests on; checked against the packed files before it becomes a link. */
export interface Citation {
  /** As the answer wrote it, with brackets: `[src/app.py#Flask]`. */
  text: string;
  /** Offset of `text` in the answer, UTF-16 units. */
  offset: number;
  /** Path of the packed file, as in the prompt. */
  path: string;
  /** file: URI of the file. */
  uri: string;
  symbol?: string;
  /** Absent: a link to the whole file. */
  span?: Span;
  /** What the span's first line was when it was read: where the file was edited since, the editor finds it by that. */
  firstLine?: string;
}

export interface AskStats {
  /** Files in the prompt / left out. "N of M files" is files of files + skipped. */
  files: number;
  skipped: number;
  /** Tokens of the whole prompt, question included. */
  promptTokens: number;
  /** Of these, tokens whose KV state was already there. */
  reusedTokens: number;
  /** Of these, tokens that came from disk, and how long that took; absent where none did. */
  loaded?: { tokens: number; seconds: number };
  /** Of what was not there, without the loading. */
  prefillSeconds: number;
  /** From the request to the first token of the answer. */
  firstTokenSeconds: number;
  decodeTokensPerSecond: number;
  answerTokens: number;
  /** Share of the keys that was visited while the repository was read, 1 for all; absent where it was loaded from disk. */
  density?: number;
  /** Mean mass that sparse attention put where dense attention puts it; absent where all was dense. */
  coveredMass?: number;
  device: string;
  model: string;
}

/** A file that an answer was read from, by the attention of its words: where the model looked, which proves nothing. */
export interface Source {
  /** Path of the packed file, as in the prompt. */
  path: string;
  /** file: URI of the file. */
  uri: string;
  /** Of the attention that went to files: 0 to 1. */
  share: number;
  /** The lines that took most of what its lines took; absent where that is little, scattered, or on an earlier version of the file. */
  span?: Span;
  /** As in Citation. */
  firstLine?: string;
}

/** A place that an answer names and that is not there. Shown as such, never as a link. */
export interface MissingPlace {
  /** As it stands in the answer, in its brackets. */
  text: string;
  /** A sentence for the user. */
  why: string;
}

export interface AskResult {
  conversationId: string;
  answer: string;
  citations: Citation[];
  missing: MissingPlace[];
  stats: AskStats;
  /** `length`: the answer was cut at maxAnswerTokens; `window`: the context is full. */
  finish: 'stop' | 'length' | 'window';
  /** With `window`, what has the room that the answer lacked: the turns before it, or else the repository and the question. */
  full?: 'turns' | 'repository';
}

/**
 * `longview/sources`: extension -> server, request. Which files the last answer of a conversation was read from. Takes less than
 * a second behind all other work; the next question ends it.
 */
export interface SourcesParams {
  conversationId: string;
}
export interface SourcesResult {
  /** The strongest first. Absent: the device cannot tell, or what was read is not there any more. */
  sources?: Source[];
}

/** `longview/prefill`: extension -> server, request. Reads the repository ahead of the first question. */
export interface PrefillResult {
  tokens: number;
  reusedTokens: number;
  seconds: number;
}

/**
 * `longview/calibrate`: extension -> server, request without parameters. Measures on the workspace's files what each head of
 * the model may leave out (minutes; Status tells how far it is) and opens the model again with what was found. Questions wait.
 * Cancelled, what was measured is kept, and the next request goes on from there.
 */
export interface CalibrateResult {
  /** Share of the keys that heads visit on average, and visited before, when a long text is read. */
  density: number;
  uncalibratedDensity: number;
}

// --- context: what is in the prompt -----------------------------------------------------------------------------------

/** Why a file is not in the prompt; a stable code, and a sentence in ContextFile.detail where there is more to say. */
export type SkipReason =
  | 'ignored' //      by .gitignore, .ignore or a default exclusion of a whole folder (listed by folder)
  | 'excluded' //     by longview.exclude
  | 'dependency' //   node_modules, vendor, ...
  | 'build-output'
  | 'lock-file'
  | 'minified'
  | 'generated' //    a run of letters, digits, signs or spaces that no one writes
  | 'binary'
  | 'too-large'
  | 'secret'
  | 'not-a-file' //   FIFO, socket, device
  | 'link-loop' //    symbolic link that leaves the workspace or comes back to a folder above
  | 'read-elsewhere' // lies in another folder of the workspace too, and is read as that one's
  | 'unreadable'
  | 'invalid-utf8' // nor of another encoding that is known
  | 'empty'
  | 'base64' //       pictures and the like in a file that is in the prompt but for them; how much
  | 'over-budget'; // does not fit in the window

export interface ContextFile {
  /** As in the prompt: `/` separators, relative to its folder, prefixed by the folder's name in a multi-root workspace. */
  path: string;
  tokens: number;
}

export interface SkippedFile {
  path: string;
  reason: SkipReason;
  detail?: string;
}

/** `longview/context`: extension -> server, request without parameters. */
export interface ContextResult {
  files: ContextFile[];
  skipped: SkippedFile[];
  /** Tokens used by files and frame / kept free for question and answer / of the window. */
  usedTokens: number;
  reservedTokens: number;
  window: number;
  /** What would give files room that have none. */
  room?: MoreRoom;
}

/** A larger window: of `factor` times the tokens that the model was trained on, or of as many as memory has room for in 4 bits. */
export type MoreRoom = { by: 'stretch'; factor: 2 | 4; window: number } | { by: '4-bits'; window: number };

// --- models -----------------------------------------------------------------------------------------------------------

export interface CatalogEntry {
  /** Stable, `owner/repository/file` on the Hugging Face hub. */
  id: string;
  name: string;
  repository: string;
  file: string;
  bytes: number;
  licence: string;
  window: number;
  /** One line: what it is good for. */
  goodFor: string;
  /** One line: what it needs: `12 GB of memory; a GPU for more than 50K tokens`. */
  needs: string;
}

export interface InstalledModel {
  name: string;
  path: string;
  bytes: number;
  builtIn: boolean;
  /** The one in use. */
  current: boolean;
  /** Lies in the models folder and is not in use. */
  deletable: boolean;
}

/** `longview/models/list`: extension -> server, request. */
export interface ModelsResult {
  installed: InstalledModel[];
  /** `part`: what a download has left that was stopped. */
  catalog: (CatalogEntry & { installed: boolean; part?: { path: string; bytes: number } })[];
  /** Why none of them runs on a GPU; absent where one may. */
  noGpu?: string;
}

/** `longview/models/download`: extension -> server, request. Streams DownloadProgress; cancel keeps the part file. */
export interface DownloadParams {
  id: string;
  partialResultToken?: string | number;
}
export interface DownloadProgress {
  done: number;
  total: number;
}
export interface DownloadResult {
  path: string;
}

/** `longview/models/use`: extension -> server, request. Loads the model; on failure the former one stays. */
export interface UseModelParams {
  path: string;
}

/** `longview/models/delete`: extension -> server, request. Deletes a downloaded model that is not in use, or a part of one. */
export interface DeleteModelParams {
  path: string;
}

// --- hovers -----------------------------------------------------------------------------------------------------------

/** A name in code, of whatever script: the inside of a regular expression with the flag u. */
export const namePattern = String.raw`[\p{ID_Start}_$][\p{ID_Continue}$]*`;

/** Characters of the shortest name that a hover explains. */
export const shortestHoverName = 3;

/**
 * `longview/explain`: extension -> server, request. What a symbol does, for its hover, which shows it from then on;
 * `textDocument/hover` itself never makes the model work: it answers with what is known, or with a link to this.
 */
export interface ExplainParams {
  symbol: string;
}
export interface ExplainResult {
  /** Absent: the repository is not read yet, or does not know the symbol. */
  text?: string;
}

// --- saved states -----------------------------------------------------------------------------------------------------

export interface SavedWorkspace {
  /** Where it lies. */
  folder: string;
  /** Whose it is. */
  folders: string[];
  model: string;
  bytes: number;
  /** When it was last used; 0: not known. */
  usedMs: number;
}

/** `longview/cache/list`: extension -> server, request without parameters. The one used last first. */
export interface CacheResult {
  saved: SavedWorkspace[];
}

/** `longview/cache/clear`: extension -> server, request without parameters. Deletes every saved state. */
export interface ClearCacheResult {
  freedBytes: number;
}

/** Method names, in one place. */
export const methods = {
  ask: 'longview/ask',
  sources: 'longview/sources',
  prefill: 'longview/prefill',
  calibrate: 'longview/calibrate',
  status: 'longview/status',
  trusted: 'longview/trusted',
  context: 'longview/context',
  modelsList: 'longview/models/list',
  modelsDownload: 'longview/models/download',
  modelsUse: 'longview/models/use',
  modelsDelete: 'longview/models/delete',
  explain: 'longview/explain',
  cacheList: 'longview/cache/list',
  cacheClear: 'longview/cache/clear',
} as const;
