/** The chat panel: shows the chat's state, and turns what the panel says into questions and editor actions. */
import { randomBytes, randomUUID } from 'node:crypto';
import {
  CancellationTokenSource,
  commands,
  env,
  Uri,
  window,
  workspace,
  type ExtensionContext,
  type Webview,
  type WebviewView,
  type WebviewViewProvider,
} from 'vscode';
import { count } from './chat/count';
import { editorLanguage } from './chat/fenceLanguage';
import type { FromWebview, ToWebview } from './chat/messages';
import { ChatHistory } from './chatHistory';
import { Chat, type SavedChat } from './chatState';
import { openPlace } from './citationTarget';
import type { AskProgress } from '../server/protocol';
import type { Server } from './client';
import { excludeFromPrompt, makeRoom } from './config';
import { plainText } from './plainText';
import { ReadingNotice } from './readingNotice';

export const viewId = 'longview.chat';
const chatKey = 'longview.chat';
const noteKey = 'longview.builtInNoteDismissed';
/** Tokens arrive faster than eyes read: they go to the panel in batches. */
const batchMs = 50;
/** What an answer has come to is kept so often: a window may go away in its middle. */
const keepMs = 2000;
/** Editors save in bursts, and git changes many files at once. */
const quietMs = 1000;
/** Characters. What is longer is a file, and said to be too long: it is not asked, whole or cut. */
const maxQuestion = 100_000;
/** Of such a question, for whoever wonders which it was. The chat is kept every few seconds. */
const keptOfTooLong = 1000;

const folderOpen = () => (workspace.workspaceFolders ?? []).length > 0;
const showError = (error: Error) => window.showErrorMessage(plainText(error.message));

export class ChatView implements WebviewViewProvider {
  private view: WebviewView | undefined;
  private stopper: CancellationTokenSource | undefined;
  private looking: CancellationTokenSource | undefined;
  /** When the chat was kept last. */
  private keptAt = 0;
  /** How often what is in the prompt is being asked for. */
  private loading = 0;
  /** Files changed since it was asked for. */
  private outdated = false;
  private quiet: NodeJS.Timeout | undefined;
  private readonly chat: Chat;
  private readonly history: ChatHistory;

  constructor(
    private readonly context: ExtensionContext,
    private readonly server: Server,
  ) {
    const { workspaceState, globalState } = context;
    this.history = new ChatHistory(workspaceState);
    this.chat = new Chat(
      (message) => this.post(message),
      !globalState.get(noteKey, false),
      folderOpen,
      workspaceState.get<SavedChat>(chatKey),
    );
    context.subscriptions.push(
      server.onStatus((status) => {
        this.chat.setStatus(status);
        this.keepUp();
      }),
      server.onFilesChanged(() => {
        clearTimeout(this.quiet);
        this.quiet = setTimeout(() => {
          this.outdated = true;
          this.keepUp();
        }, quietMs);
      }),
      { dispose: () => clearTimeout(this.quiet) },
      workspace.onDidChangeConfiguration((event) => {
        // What was wrong may be mended: the model is tried again.
        const failed = this.chat.state.status.health === 'error';
        const matters = event.affectsConfiguration(failed ? 'longview' : 'longview.files');
        if (matters && this.view) void this.loadContents();
      }),
      workspace.onDidChangeWorkspaceFolders(() => {
        this.chat.snapshot();
        void this.loadContents();
      }),
    );
  }

  private post(message: ToWebview): void {
    void this.view?.webview.postMessage(message);
  }

  resolveWebviewView(view: WebviewView): void {
    this.view = view;
    const assets = Uri.joinPath(this.context.extensionUri, 'dist', 'chat');
    view.webview.options = { enableScripts: true, localResourceRoots: [assets] };
    view.webview.onDidReceiveMessage((message: FromWebview) => this.receive(message));
    view.onDidDispose(() => (this.view = undefined));
    view.webview.html = page(view.webview, assets);
  }

  private receive(message: FromWebview): void {
    switch (message.type) {
      case 'ready':
        this.chat.snapshot();
        return void this.loadContents();
      case 'ask':
        return void this.ask(message.question);
      case 'stop':
        return this.stop();
      case 'clear':
        return this.newChat();
      case 'copy':
        return void env.clipboard.writeText(String(message.text));
      case 'insert':
        return void insert(String(message.text));
      case 'openCode':
        return void openCode(String(message.text), String(message.language));
      case 'excludeFolder':
        return void this.excludeFolder(String(message.path)).catch(showError);
      case 'makeRoom':
        return void this.makeRoom().catch(showError);
      case 'openCitation': {
        const citation = this.chat.turn(message.turnId)?.citations[message.index];
        if (citation) void openPlace(citation);
        return;
      }
      case 'openSource': {
        const source = this.chat.turn(message.turnId)?.sources?.[message.index];
        if (source) void openPlace(source);
        return;
      }
      case 'dismissBuiltInNote':
        void this.context.globalState.update(noteKey, true);
        return this.chat.dismissBuiltInNote();
      case 'chooseModel':
        return void commands.executeCommand('longview.chooseModel');
      case 'openFolder':
        return void commands.executeCommand('vscode.openFolder');
      case 'showContext':
        return void commands.executeCommand('longview.showPromptContents');
      case 'retry': {
        const turn = this.chat.turn(message.turnId);
        if (!turn || turn.refused || this.chat.busy) return;
        this.chat.remove(turn.id);
        return void this.ask(turn.question);
      }
    }
  }

  /** Shows the panel and puts the cursor into its input. */
  async focus(): Promise<void> {
    await commands.executeCommand(`${viewId}.focus`);
    this.chat.focusInput();
  }

  /** Has the bar and the map say what is in the files now, unless something is under way. */
  private keepUp(): void {
    const { phase, context } = this.chat.state.status;
    if (phase !== 'ready' || !this.view || this.loading) return;
    // A server that was started again, or with another model, has not looked at the files yet. A panel that is hidden asks when
    // it is shown.
    if (!context || (this.outdated && this.view.visible)) void this.loadContents();
  }

  /** What is in the prompt, before the first question too. */
  private async loadContents(): Promise<void> {
    if (!folderOpen()) return;
    this.outdated = false;
    this.loading++;
    try {
      this.chat.setContents(await this.server.promptContents());
    } catch {
      // The status says what is wrong, and so does the next question.
    } finally {
      this.loading--;
      if (this.outdated) this.keepUp();
    }
  }

  private async excludeFolder(folder: string): Promise<void> {
    const known = this.chat.state.contents?.files.some(({ path }) => path.startsWith(`${folder}/`));
    if (!known) return;
    const undo = await excludeFromPrompt(folder);
    await this.loadContents();
    const said = plainText(`${folder}/ is left out of the prompt.`);
    if ((await window.showInformationMessage(said, 'Undo')) !== 'Undo') return;
    await undo();
    await this.loadContents();
  }

  /** What is in the prompt is asked for again when the model is there with its larger window. */
  private async makeRoom(): Promise<void> {
    const room = this.chat.state.contents?.room;
    if (!room) return;
    const undo = await makeRoom(room);
    const said = `The window is ${count(room.window)} tokens in this workspace.`;
    if ((await window.showInformationMessage(said, 'Undo')) === 'Undo') await undo();
  }

  /** Asks in the panel; one question at a time. `notify`: shows a notification too when the reading takes long. */
  async ask(text: string, { notify = false } = {}): Promise<void> {
    const question = String(text).trim();
    if (question === '' || this.chat.busy) return;
    const id = randomUUID();
    if (question.length > maxQuestion) {
      this.chat.refused(id, `${question.slice(0, keptOfTooLong)}…`, tooLong(question.length));
      return this.save();
    }
    const { conversationId, history } = this.chat.asked;
    const stopper = new CancellationTokenSource();
    this.looking?.cancel();
    this.stopper = stopper;
    this.chat.begin(id, question);
    // A window that goes away before an answer keeps the question.
    this.save();
    let waiting = '';
    const flush = () => {
      this.chat.text(id, waiting);
      if (waiting !== '' && performance.now() - this.keptAt > keepMs) this.save();
      waiting = '';
    };
    const batches = setInterval(flush, batchMs);
    const notice = notify ? new ReadingNotice(() => stopper.cancel()) : undefined;
    const show = (progress: AskProgress) => {
      if (progress.kind === 'text') waiting += progress.text;
      else this.chat.progress(id, progress);
      if (progress.kind === 'text') notice?.dispose();
      if (progress.kind === 'phase') notice?.show(progress);
    };
    // Until it is begun with, what it waits for: a model that is loaded, or calibrated.
    const before = this.server.onStatus(({ phase, message }) => {
      if (phase !== 'ready' && phase !== 'failed') show({ kind: 'phase', phase, message });
    });
    try {
      const result = await this.server.ask(
        { question, conversationId, history },
        (progress) => {
          before.dispose();
          show(progress);
        },
        stopper.token,
      );
      flush();
      this.chat.done(id, result);
      void this.lookAt(id, result.conversationId);
    } catch (error) {
      flush();
      if (stopper.token.isCancellationRequested) this.chat.stopped(id);
      else this.chat.failed(id, (error as Error).message);
    } finally {
      clearInterval(batches);
      before.dispose();
      notice?.dispose();
      stopper.dispose();
      // In a new chat another question may be under way.
      if (this.stopper === stopper) this.stopper = undefined;
      this.save();
      void this.loadContents();
    }
  }

  /** Adds what an answer was read from, when that is known; the next question ends it. */
  private async lookAt(turnId: string, conversationId: string): Promise<void> {
    const looking = new CancellationTokenSource();
    this.looking = looking;
    const sources = await this.server.sources(conversationId, looking.token);
    looking.dispose();
    if (!sources || looking.token.isCancellationRequested) return;
    this.chat.sources(turnId, sources);
    this.save();
  }

  /** Whether a question is under way. */
  get busy(): boolean {
    return this.chat.busy;
  }

  stop(): void {
    this.stopper?.cancel();
    this.looking?.cancel();
  }

  /** Begins a new chat; the present one goes into the history. */
  newChat(): void {
    this.stop();
    this.history.add(this.chat.saved, randomUUID());
    this.chat.restore();
    this.save();
  }

  async showHistory(): Promise<void> {
    const id = await this.history.pick();
    const chosen = id === undefined ? undefined : this.history.take(id);
    if (!chosen) return;
    this.stop();
    this.history.add(this.chat.saved, randomUUID());
    this.chat.restore(chosen);
    this.save();
    await this.focus();
  }

  get markdown(): string {
    return this.chat.markdown();
  }

  private save(): void {
    this.keptAt = performance.now();
    void this.context.workspaceState.update(chatKey, this.chat.saved);
  }
}

const tooLong = (length: number) =>
  `The question has ${count(length)} characters; ${count(maxQuestion)} are the most. Ask something shorter, or save what you pasted as a file in the folder.`;

async function insert(text: string): Promise<void> {
  const editor = window.activeTextEditor;
  if (!editor) return void window.showInformationMessage('Open a file to insert code into it.');
  if (await editor.edit((edit) => edit.replace(editor.selection, text))) return;
  const said = `Nothing was inserted: ${workspace.asRelativePath(editor.document.uri)} cannot be edited.`;
  void window.showWarningMessage(plainText(said));
}

async function openCode(content: string, language: string): Promise<void> {
  const open = (language?: string) => workspace.openTextDocument({ content, language });
  await window.showTextDocument(await open(editorLanguage(language)).then(undefined, () => open()));
}

function page(webview: Webview, assets: Uri): string {
  const nonce = randomBytes(24).toString('base64');
  const uri = (name: string) => webview.asWebviewUri(Uri.joinPath(assets, name)).toString();
  const policy = [
    "default-src 'none'",
    `script-src 'nonce-${nonce}'`,
    `style-src ${webview.cspSource}`,
    `font-src ${webview.cspSource}`,
    `img-src ${webview.cspSource} data:`,
  ].join('; ');
  return `<!DOCTYPE html>
<html lang="en">
  <head>
    <meta charset="utf-8">
    <meta http-equiv="Content-Security-Policy" content="${policy}">
    <meta name="viewport" content="width=device-width, initial-scale=1">
    <link rel="stylesheet" href="${uri('style.css')}">
    <title>Longview</title>
  </head>
  <body>
    <main id="turns" aria-label="Conversation"><div id="note" hidden></div></main>
    <form id="ask">
      <div id="status" role="status" class="unseen"></div>
      <p id="wrong" hidden></p>
      <p id="progress" class="facts waiting" hidden></p>
      <section id="map" aria-label="What is in the prompt" hidden></section>
      <div id="budget" hidden></div>
      <div id="box">
        <textarea id="question" rows="1" aria-label="Question about this repository" placeholder="Ask about this repo"></textarea>
        <button type="submit" id="send">Ask</button>
      </div>
    </form>
    <script nonce="${nonce}" src="${uri('view.js')}"></script>
  </body>
</html>`;
}
