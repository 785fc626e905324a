/** Every command of the extension, in one table. */
import {
  commands,
  ProgressLocation,
  window,
  workspace,
  type CancellationToken,
  type Disposable,
} from 'vscode';
import { namePattern, shortestHoverName } from '../server/protocol';
import { count } from './chat/count';
import type { ChatView } from './chatView';
import { isCancelled, type Server } from './client';
import { readSettings } from './config';
import { chooseModel } from './modelPicker';
import { plainText } from './plainText';
import type { PromptContents } from './promptContents';

export function registerCommands(server: Server, chat: ChatView, contents: PromptContents): Disposable[] {
  const table: Record<string, (argument?: unknown) => Promise<void> | void> = {
    'longview.ask': (question) => ask(chat, question),
    'longview.stop': () => chat.stop(),
    'longview.newChat': () => chat.newChat(),
    'longview.showHistory': () => chat.showHistory(),
    'longview.exportChat': () => exportChat(chat),
    'longview.readNow': () => readNow(server),
    'longview.calibrate': () => calibrate(server),
    'longview.chooseModel': () => chooseModel(server),
    'longview.showPromptContents': () => contents.show(),
    'longview.openSettings': () =>
      commands.executeCommand('workbench.action.openSettings', '@ext:longview.longview') as Promise<void>,
    'longview.explain': (symbol) => explain(server, symbol),
    'longview.clearCache': () => clearCache(server),
    'longview.showMenu': () => showMenu(server),
  };
  return Object.entries(table).map(([id, run]) =>
    commands.registerCommand(id, async (argument?: unknown) => {
      try {
        await run(argument);
      } catch (error) {
        if (!isCancelled(error)) void window.showErrorMessage(plainText((error as Error).message));
      }
    }),
  );
}

/** `given`: a question, when the command is called with one. */
async function ask(chat: ChatView, given: unknown): Promise<void> {
  if (chat.busy) {
    await chat.focus();
    return void window.showInformationMessage('A question is still being answered: wait for it, or stop it.');
  }
  const question =
    typeof given === 'string'
      ? given
      : await window.showInputBox({
          title: 'Longview: Ask About This Repo',
          prompt: 'The model reads the whole repository; the second question is much faster',
          placeHolder: 'Where is the retry delay computed?',
        });
  if (!question?.trim()) return;
  await chat.focus();
  await chat.ask(question, { notify: true });
}

function symbolAtCursor(): string | undefined {
  const editor = window.activeTextEditor;
  const word = editor?.document.getWordRangeAtPosition(editor.selection.active, new RegExp(namePattern, 'u'));
  return word && editor?.document.getText(word);
}

/** Whether a hover at the cursor shows what is known of a symbol. Ours are over names in files. */
function hoverShows(symbol: string): boolean {
  const inFile = window.activeTextEditor?.document.uri.scheme === 'file';
  return readSettings().hover && inFile && symbol.length >= shortestHoverName && symbolAtCursor() === symbol;
}

/** From a hover's link, or for what the cursor is on. Ends with a hover at the cursor, or a message where that has no place. */
async function explain(server: Server, given: unknown): Promise<void> {
  // While the one with the link is open, none is shown anew.
  await commands.executeCommand('editor.action.hideHover');
  const symbol = typeof given === 'string' ? given : symbolAtCursor();
  if (!symbol) return void window.showInformationMessage('Put the cursor on a symbol to have it explained.');
  const options = {
    location: ProgressLocation.Notification,
    title: plainText(`Explaining ${symbol}`),
    cancellable: true,
  };
  const text = await window.withProgress(options, (_progress, token) => server.explain(symbol, token));
  if (text === undefined)
    return void window.showInformationMessage(
      plainText(
        `The repository has to be read first, and to name ${symbol}: Longview: Read the Repository Now.`,
      ),
    );
  if (hoverShows(symbol)) await commands.executeCommand('editor.action.showHover');
  else void window.showInformationMessage(plainText(text));
}

async function readNow(server: Server): Promise<void> {
  const { tokens, reusedTokens } = await withStatus(server, (token) => server.prefill(token));
  if (reusedTokens < tokens) return;
  const all = count(tokens);
  void window.showInformationMessage(
    `All ${all} tokens of the repository were read before: answers begin at once.`,
  );
}

async function calibrate(server: Server): Promise<void> {
  const result = await withStatus(server, (token) => server.calibrate(token));
  const percent = (share: number) => `${(100 * share).toFixed(1)} %`;
  void window.showInformationMessage(
    `Calibrated: of a long text the model now reads ${percent(result.density)} of the keys, chosen for each head (${percent(result.uncalibratedDensity)} before, all heads alike).`,
  );
}

/** A notification that shows the server's status while it works, with a Cancel button. */
async function withStatus<T>(server: Server, work: (token: CancellationToken) => Promise<T>): Promise<T> {
  return window.withProgress(
    { location: ProgressLocation.Notification, title: 'Longview', cancellable: true },
    async (progress, token) => {
      let shown = 0;
      const listener = server.onStatus(({ message, prefill }) => {
        const percent = prefill ? (100 * prefill.done) / Math.max(prefill.total, 1) : 0;
        progress.report({ message: plainText(message), increment: Math.max(0, percent - shown) });
        shown = Math.max(shown, percent);
      });
      try {
        return await work(token);
      } finally {
        listener.dispose();
      }
    },
  );
}

async function exportChat(chat: ChatView): Promise<void> {
  if (chat.markdown === '')
    return void window.showInformationMessage('There is no chat to export: ask something first.');
  const document = await workspace.openTextDocument({ language: 'markdown', content: chat.markdown });
  await window.showTextDocument(document);
}

const gigabytes = (bytes: number) => `${(bytes / 1e9).toFixed(2)} GB`;

async function clearCache(server: Server): Promise<void> {
  const saved = await server.savedStates();
  if (saved.length === 0) return void window.showInformationMessage('Nothing is saved on disk.');
  const total = saved.reduce((sum, { bytes }) => sum + bytes, 0);
  const detail = saved.map(
    ({ bytes, folders, model }) => `${gigabytes(bytes)}: ${folders.join(', ')} (${model})`,
  );
  const clear = await window.showWarningMessage(
    `Delete the saved states of ${saved.length} ${saved.length === 1 ? 'workspace' : 'workspaces'}, ${gigabytes(total)}? Each is read again when it is asked about in a new window.`,
    { modal: true, detail: detail.join('\n') },
    'Delete',
  );
  if (clear !== 'Delete') return;
  void window.showInformationMessage(`${gigabytes(await server.clearSavedStates())} freed.`);
}

async function showMenu(server: Server): Promise<void> {
  const saved = server.isRunning ? await server.savedStates() : [];
  const total = saved.reduce((sum, { bytes }) => sum + bytes, 0);
  const entries = [
    { label: '$(comment) Ask about this repo', id: 'longview.ask' },
    { label: '$(book) Read the repository now', id: 'longview.readNow' },
    { label: '$(list-tree) Show what is in the prompt', id: 'longview.showPromptContents' },
    { label: '$(history) Chat history', id: 'longview.showHistory' },
    { label: '$(package) Choose a model', id: 'longview.chooseModel' },
    {
      label: '$(trash) Clear the cache',
      description: saved.length > 0 ? `${gigabytes(total)} on disk` : '',
      id: 'longview.clearCache',
    },
    { label: '$(gear) Settings', id: 'longview.openSettings' },
  ];
  const chosen = await window.showQuickPick(entries, { title: 'Longview' });
  if (chosen) await commands.executeCommand(chosen.id);
}
