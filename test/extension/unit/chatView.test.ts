/** What the panel asks of the host, with an editor and a server that do as the test says. */
import { beforeEach, describe, expect, it, vi } from 'vitest';
import { ChatView } from '../../../extension/chatView';
import type { FromWebview, ToWebview } from '../../../server/protocol';

type Token = { isCancellationRequested: boolean };

const editor = vi.hoisted(() => ({
  /** `longview.files.exclude`. */
  exclude: { user: undefined as string[] | undefined, workspace: undefined as string[] | undefined },
  /** What the editor does before it writes to its settings. */
  write: (): Promise<void> => Promise.resolve(),
  answers: [] as ((answer: string | undefined) => void)[],
  errors: [] as string[],
}));

vi.mock('vscode', () => {
  const { exclude } = editor;
  const inspect = () => ({ defaultValue: [], globalValue: exclude.user, workspaceValue: exclude.workspace });
  const get = (key: string) => (key === 'files.exclude' ? (exclude.workspace ?? exclude.user ?? []) : '');
  const update = (_key: string, value: string[] | undefined) =>
    editor.write().then(() => void (exclude.workspace = value));
  class CancellationTokenSource {
    token = { isCancellationRequested: false };
    cancel() {
      this.token.isCancellationRequested = true;
    }
    dispose() {}
  }
  return {
    CancellationTokenSource,
    ConfigurationTarget: { Workspace: 2 },
    Uri: { joinPath: () => '' },
    window: {
      showInformationMessage: () =>
        new Promise<string | undefined>((resolve) => editor.answers.push(resolve)),
      showErrorMessage: (message: string) => editor.errors.push(message),
    },
    workspace: {
      workspaceFolders: [{}],
      onDidChangeWorkspaceFolders: () => ({ dispose() {} }),
      getConfiguration: () => ({ inspect, get, update }),
    },
  };
});

const memento = () => {
  const values = new Map<string, unknown>();
  return {
    get: (key: string, otherwise?: unknown) => values.get(key) ?? otherwise,
    update: (key: string, value: unknown) => void values.set(key, value),
  };
};

/** The host's side, once it knows what is in the prompt, and what came to its server. */
async function host() {
  const asked: { token: Token; fail: (error: Error) => void }[] = [];
  const event = () => ({ dispose() {} });
  const contents = { files: ['a/x', 'b/x'].map((path) => ({ path, tokens: 1 })), skipped: [] };
  const server = {
    onStatus: event,
    onCrash: event,
    promptContents: () => Promise.resolve(contents),
    ask: (_params: unknown, _progress: unknown, token: Token) =>
      new Promise((_, fail) => asked.push({ token, fail })),
  };
  const context = { workspaceState: memento(), globalState: memento(), subscriptions: [] };
  const chat = new ChatView(context as never, server as never);
  const posted: string[] = [];
  let receive!: (message: FromWebview) => void;
  chat.resolveWebviewView({
    onDidDispose: event,
    webview: {
      onDidReceiveMessage: (listener: typeof receive) => (receive = listener),
      asWebviewUri: () => '',
      postMessage: ({ type }: ToWebview) => posted.push(type),
    },
  } as never);
  receive({ type: 'ready' });
  await vi.waitFor(() => expect(posted).toContain('contents'));
  return { chat, asked, receive };
}

describe('a new chat in the middle of an answer', () => {
  it('leaves the next question its Stop', async () => {
    const { chat, asked, receive } = await host();
    const first = chat.ask('Where?');
    chat.newChat();
    expect(asked[0]!.token.isCancellationRequested).toBe(true);
    void chat.ask('What?');
    asked[0]!.fail(new Error('Stopped.'));
    await first;
    receive({ type: 'stop' });
    expect(asked[1]!.token.isCancellationRequested).toBe(true);
  });
});

describe('leaving a folder out', () => {
  beforeEach(() => {
    Object.assign(editor, { answers: [], errors: [], write: () => Promise.resolve() });
    editor.exclude.user = ['*.csv'];
    editor.exclude.workspace = undefined;
  });

  /** Leaves folders out; returns what presses Undo of one of them. */
  async function leaveOut(...folders: string[]) {
    const { receive } = await host();
    for (const [i, path] of folders.entries()) {
      receive({ type: 'excludeFolder', path });
      await vi.waitFor(() => expect(editor.answers).toHaveLength(i + 1));
    }
    return (folder: string) => editor.answers[folders.indexOf(folder)]!('Undo');
  }

  it('is taken back for this folder alone', async () => {
    const undo = await leaveOut('a', 'b');
    expect(editor.exclude.workspace).toEqual(['*.csv', '/a/', '/b/']);
    undo('a');
    await vi.waitFor(() => expect(editor.exclude.workspace).toEqual(['*.csv', '/b/']));
    undo('b');
    await vi.waitFor(() => expect(editor.exclude.workspace).toBeUndefined());
  });

  it('says why the settings could not be written', async () => {
    editor.write = () => Promise.reject(new Error('Unable to write into settings.json.'));
    const { receive } = await host();
    receive({ type: 'excludeFolder', path: 'a' });
    await vi.waitFor(() => expect(editor.errors).toEqual(['Unable to write into settings.json.']));
  });
});
