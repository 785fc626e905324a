/** What the panel asks of the host, with an editor and a server that do as the test says. */
import { beforeEach, describe, expect, it, vi } from 'vitest';
import { ChatView } from '../../../extension/chatView';
import type { AskProgress, Status } from '../../../server/protocol';
import type { FromWebview, ToWebview } from '../../../extension/chat/messages';

type Token = { isCancellationRequested: boolean };

const editor = vi.hoisted(() => ({
  /** `longview.files.exclude`. */
  exclude: { user: undefined as string[] | undefined, workspace: undefined as string[] | undefined },
  /** What the editor does before it writes to its settings. */
  write: (): Promise<void> => Promise.resolve(),
  answers: [] as ((answer: string | undefined) => void)[],
  errors: [] as string[],
  warnings: [] as string[],
  writable: true,
  changed: (_event: { affectsConfiguration(name: string): boolean }): void => {},
}));

vi.mock('vscode', () => {
  const { exclude } = editor;
  const inspect = (key: string) =>
    key.endsWith('files.exclude')
      ? { defaultValue: [], globalValue: exclude.user, workspaceValue: exclude.workspace }
      : { defaultValue: '' };
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
  /** The first item is chosen. */
  const createQuickPick = () => ({
    items: [] as unknown[],
    get selectedItems() {
      return this.items.slice(0, 1);
    },
    show() {},
    dispose() {},
    onDidTriggerItemButton() {},
    onDidTriggerButton() {},
    onDidAccept: (accept: () => void) => accept(),
    onDidHide() {},
  });
  return {
    CancellationTokenSource,
    ThemeIcon: class {},
    commands: { executeCommand: () => Promise.resolve() },
    ConfigurationTarget: { Workspace: 2 },
    Uri: { joinPath: () => '', parse: (text: string) => new URL(text) },
    window: {
      createQuickPick,
      activeTextEditor: { document: { uri: 'prompt.md' }, edit: () => Promise.resolve(editor.writable) },
      showInformationMessage: () =>
        new Promise<string | undefined>((resolve) => editor.answers.push(resolve)),
      showWarningMessage: (message: string) => editor.warnings.push(message),
      showErrorMessage: (message: string) => editor.errors.push(message),
    },
    workspace: {
      workspaceFolders: [{ uri: { fsPath: '/w' } }],
      asRelativePath: (uri: string) => uri,
      getWorkspaceFolder: () => undefined,
      onDidChangeWorkspaceFolders: () => ({ dispose() {} }),
      onDidChangeConfiguration: (listener: typeof editor.changed) => (editor.changed = listener),
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
  const asked: {
    progress: (progress: AskProgress) => void;
    token: Token;
    answer: (result: unknown) => void;
    fail: (error: Error) => void;
  }[] = [];
  const looked: { of: string; token: Token; tell: (sources?: unknown[]) => void }[] = [];
  const event = () => ({ dispose() {} });
  const contents = { files: ['a/x', 'b/x'].map((path) => ({ path, tokens: 1 })), skipped: [] };
  const listeners = new Set<(status: Partial<Status>) => void>();
  const status = (now: Partial<Status>) => [...listeners].forEach((listener) => listener(now));
  let filesChanged = () => {};
  const server = {
    onFilesChanged: (listener: () => void) => (filesChanged = listener),
    onStatus: (listener: typeof status) => {
      listeners.add(listener);
      return { dispose: () => listeners.delete(listener) };
    },
    promptContents: () => Promise.resolve(contents),
    ask: (_params: unknown, progress: (progress: AskProgress) => void, token: Token) =>
      new Promise((answer, fail) => asked.push({ progress, token, answer, fail })),
    sources: (of: string, token: Token) => new Promise((tell) => looked.push({ of, token, tell })),
  };
  const context = { workspaceState: memento(), globalState: memento(), subscriptions: [] };
  const chat = new ChatView(context as never, server as never);
  const posted: string[] = [];
  const turns: string[] = [];
  const doing: string[] = [];
  let receive!: (message: FromWebview) => void;
  const view = { visible: true };
  chat.resolveWebviewView({
    get visible() {
      return view.visible;
    },
    onDidDispose: event,
    webview: {
      onDidReceiveMessage: (listener: typeof receive) => (receive = listener),
      asWebviewUri: () => '',
      postMessage: (message: ToWebview) => {
        posted.push(message.type);
        if (message.type !== 'turn') return;
        turns.push(message.turn.id);
        if (message.turn.progress) doing.push(message.turn.progress.message);
      },
    },
  } as never);
  receive({ type: 'ready' });
  await vi.waitFor(() => expect(posted).toContain('contents'));
  const kept = () => context.workspaceState.get('longview.chat');
  const past = () => context.workspaceState.get('longview.pastChats');
  return { chat, view, asked, looked, posted, turns, doing, receive, status, filesChanged, kept, past };
}

async function answered(its: Awaited<ReturnType<typeof host>>, conversationId: string) {
  const asking = its.chat.ask('Where?');
  its.asked.at(-1)!.answer({ conversationId, answer: 'There.', citations: [] });
  await asking;
}

describe('a chat', () => {
  it('is kept from its question on, with what had come of an answer that was stopped', async () => {
    const { chat, asked, posted, receive, kept } = await host();
    const asking = chat.ask('Where?');
    expect(kept()).toMatchObject({ turns: [{ question: 'Where?', state: 'waiting' }] });
    asked[0]!.progress({ kind: 'phase', phase: 'reading', message: 'Reading' });
    expect(posted.filter((type) => type === 'turn')).toHaveLength(2);
    asked[0]!.progress({ kind: 'text', text: 'In ' });
    await vi.waitFor(() => expect(posted).toContain('text'));
    asked[0]!.progress({ kind: 'text', text: 'a.py' });
    receive({ type: 'stop' });
    asked[0]!.fail(new Error('Stopped.'));
    await asking;
    expect(kept()).toMatchObject({ turns: [{ state: 'stopped', answer: 'In a.py' }] });
  });

  it('says what a question waits for until it is begun with', async () => {
    const { chat, asked, status, doing } = await host();
    const asking = chat.ask('Where?');
    status({ phase: 'starting', message: 'Loading large.gguf: 1.2 of 16.1 GB' });
    status({ phase: 'ready', message: 'Large on a GPU' });
    asked[0]!.progress({ kind: 'phase', phase: 'scanning', message: 'Looking at the files' });
    status({ phase: 'reading', message: 'Reading 1 of 2 tokens' });
    asked[0]!.answer({ answer: 'There.', citations: [] });
    await asking;
    status({ phase: 'starting', message: 'Loading another.gguf' });
    expect(doing).toEqual(['Starting', 'Loading large.gguf: 1.2 of 16.1 GB', 'Looking at the files']);
  });

  it('says why a question failed, and has it asked again in its place', async () => {
    const { chat, asked, turns, receive, kept } = await host();
    const asking = chat.ask('Where?');
    asked[0]!.fail(new Error('No model.'));
    await asking;
    expect(kept()).toMatchObject({ turns: [{ state: 'failed', error: 'No model.' }] });
    receive({ type: 'retry', turnId: turns.at(-1)! });
    expect(asked).toHaveLength(2);
    expect(kept()).toMatchObject({ turns: [{ question: 'Where?', state: 'waiting' }] });
    expect(kept()).not.toHaveProperty('turns.1');
  });

  it('goes into the history when another begins or comes back', async () => {
    const its = await host();
    await answered(its, 'c');
    its.chat.newChat();
    expect(its.kept()).toMatchObject({ turns: [], conversationId: undefined });
    expect(its.past()).toMatchObject([{ conversationId: 'c' }]);
    await answered(its, 'd');
    await its.chat.showHistory();
    expect(its.kept()).toMatchObject({ turns: [{ answer: 'There.' }], conversationId: 'c' });
    expect(its.past()).toMatchObject([{ conversationId: 'd' }]);
  });
});

describe('what is in the prompt', () => {
  const shown = (posted: string[]) => posted.filter((type) => type === 'contents').length;
  const files = { files: 2, skipped: 0, tokens: 2, window: 9 };

  it('is asked for again when a server or a model is ready that has not looked', async () => {
    const { status, posted } = await host();
    status({ phase: 'starting' });
    status({ phase: 'ready', context: files });
    status({ phase: 'ready' });
    status({ phase: 'ready' });
    await vi.waitFor(() => expect(shown(posted)).toBe(2));
    await Promise.resolve();
    expect(shown(posted)).toBe(2);
  });

  it('is asked for again when settings change which files are read', async () => {
    const { posted } = await host();
    editor.changed({ affectsConfiguration: (name) => 'longview.hover.enabled'.startsWith(name) });
    editor.changed({ affectsConfiguration: (name) => 'longview.files.exclude'.startsWith(name) });
    await vi.waitFor(() => expect(shown(posted)).toBe(2));
  });

  it('is asked for again, and the model tried, when settings change after a failure', async () => {
    const { status, posted } = await host();
    status({ phase: 'failed', health: 'error', message: 'There is no model.' });
    editor.changed({ affectsConfiguration: (name) => 'longview.model.path'.startsWith(name) });
    await vi.waitFor(() => expect(shown(posted)).toBe(2));
  });
});

describe('what is in the prompt, when files change', () => {
  const shown = (posted: string[]) => posted.filter((type) => type === 'contents').length;
  const context = { files: 2, skipped: 0, tokens: 2, window: 9 };
  beforeEach(() => {
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] });
    return () => vi.useRealTimers();
  });

  it('is asked for again, once when many do', async () => {
    const { filesChanged, status, posted } = await host();
    status({ phase: 'ready', context });
    filesChanged();
    filesChanged();
    await vi.advanceTimersByTimeAsync(5000);
    expect(shown(posted)).toBe(2);
    await vi.advanceTimersByTimeAsync(60_000);
    expect(shown(posted)).toBe(2);
  });

  it('is asked for when a reading is over that they change in', async () => {
    const { filesChanged, status, posted } = await host();
    status({ phase: 'reading', context });
    filesChanged();
    await vi.advanceTimersByTimeAsync(5000);
    expect(shown(posted)).toBe(1);
    status({ phase: 'ready', context });
    await vi.advanceTimersByTimeAsync(0);
    expect(shown(posted)).toBe(2);
  });

  it('waits for a panel that is hidden to be shown', async () => {
    const { filesChanged, status, view, posted, receive } = await host();
    status({ phase: 'ready', context });
    view.visible = false;
    filesChanged();
    await vi.advanceTimersByTimeAsync(5000);
    expect(shown(posted)).toBe(1);
    view.visible = true;
    receive({ type: 'ready' });
    await vi.advanceTimersByTimeAsync(0);
    expect(shown(posted)).toBe(2);
  });
});

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

describe('the sources of an answer', () => {
  const source = { path: 'a/x', uri: 'file:///elsewhere/a/x', share: 1 };
  it('are asked for when it is done, and shown when they are there', async () => {
    const its = await host();
    await answered(its, 'c');
    expect(its.looked).toMatchObject([{ of: 'c', token: { isCancellationRequested: false } }]);
    expect(its.chat.busy).toBe(false);
    its.looked[0]!.tell([source]);
    await vi.waitFor(() => expect(its.posted.at(-1)).toBe('sources'));
    expect(its.chat.markdown).toContain('Looked at most: `a/x` (100 %)');
  });

  it('are given up for the next question, and for a new chat', async () => {
    const its = await host();
    await answered(its, 'c');
    void its.chat.ask('And?');
    expect(its.looked[0]!.token.isCancellationRequested).toBe(true);
    its.looked[0]!.tell([source]);
    its.asked.at(-1)!.answer({ conversationId: 'c', answer: 'Here.', citations: [] });
    await vi.waitFor(() => expect(its.looked).toHaveLength(2));
    its.chat.newChat();
    expect(its.looked[1]!.token.isCancellationRequested).toBe(true);
    its.looked[1]!.tell(undefined);
    expect(its.posted).not.toContain('sources');
  });

  it('open places of the workspace alone', async () => {
    const its = await host();
    await answered(its, 'c');
    its.looked[0]!.tell([source]);
    await vi.waitFor(() => expect(its.posted.at(-1)).toBe('sources'));
    const turnId = its.turns.at(-1)!;
    editor.warnings = [];
    for (const index of [1, -1, 0.5]) its.receive({ type: 'openSource', turnId, index });
    its.receive({ type: 'openSource', turnId: 'none', index: 0 });
    expect(editor.warnings).toEqual([]);
    its.receive({ type: 'openSource', turnId, index: 0 });
    expect(editor.warnings).toEqual(['a/x does not lie in this workspace.']);
  });
});

describe('an answer', () => {
  it('is kept as far as it came, for a window that goes away in its middle', async () => {
    const { chat, asked, kept } = await host();
    vi.useFakeTimers({ toFake: ['setInterval', 'clearInterval', 'performance'] });
    try {
      void chat.ask('Where?');
      for (const text of ['In ', 'a.py', '.']) {
        asked[0]!.progress({ kind: 'text', text });
        vi.advanceTimersByTime(1500);
      }
      expect(kept()).toMatchObject({
        turns: [{ question: 'Where?', answer: expect.stringMatching(/^In /) as string }],
      });
    } finally {
      vi.useRealTimers();
    }
  });
});

describe('a question that is longer than any', () => {
  it('fails with its length instead of being cut, also when it is asked again; its beginning is kept', async () => {
    const { chat, asked, turns, receive, kept } = await host();
    const question = `Why? ${'x'.repeat(100_000)}`;
    await chat.ask(question);
    const error = expect.stringContaining('100,005 characters') as string;
    const beginning = `${question.slice(0, 1000)}…`;
    const refused = { turns: [{ question: beginning, state: 'failed', error }] };
    expect(kept()).toMatchObject(refused);
    expect(chat.busy).toBe(false);
    receive({ type: 'retry', turnId: turns.at(-1)! });
    expect(kept()).toMatchObject(refused);
    expect(asked).toEqual([]);
    void chat.ask(question.slice(1).trim().slice(0, 100_000));
    expect(asked).toHaveLength(1);
  });
});

describe('inserting code', () => {
  it('says where an editor does not take it', async () => {
    const { receive } = await host();
    editor.warnings = [];
    receive({ type: 'insert', text: 'a' });
    editor.writable = false;
    receive({ type: 'insert', text: 'a' });
    await vi.waitFor(() =>
      expect(editor.warnings).toEqual(['Nothing was inserted: prompt.md cannot be edited.']),
    );
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

  it('knows the folders of the prompt alone', async () => {
    const { receive } = await host();
    for (const path of ['..', 'a/x', '', 'c']) receive({ type: 'excludeFolder', path });
    receive({ type: 'excludeFolder', path: 'a' });
    await vi.waitFor(() => expect(editor.answers).toHaveLength(1));
    expect(editor.exclude.workspace).toEqual(['*.csv', '/a/']);
  });

  it('says why the settings could not be written', async () => {
    editor.write = () => Promise.reject(new Error('Unable to write into settings.json.'));
    const { receive } = await host();
    receive({ type: 'excludeFolder', path: 'a' });
    await vi.waitFor(() => expect(editor.errors).toEqual(['Unable to write into settings.json.']));
  });
});
