/** What requests come to when their server dies. */
import { beforeEach, describe, expect, it, vi } from 'vitest';
import type { CancellationToken } from 'vscode';
import { LSPErrorCodes, ResponseError } from 'vscode-languageclient/node';
import { Server } from '../../../extension/client';
import type { Status } from '../../../server/protocol';

const wire = vi.hoisted(() => ({
  /** As the library does it when the connection closes. */
  die: (): void => undefined,
  /** What a request comes to. */
  answer: (): Promise<unknown> => new Promise(() => undefined),
  started: 0,
  disposed: 0,
  /** What the server is told as it begins. */
  initially: [] as unknown[],
  notified: [] as string[],
  told: [] as unknown[],
  logged: [] as string[],
}));
const settings = vi.hoisted(() => ({
  change: (_: { affectsConfiguration: (section: string) => boolean }): void => undefined,
  trust: (): void => undefined,
  /** What the editor says of a file that changed. */
  files: [] as ((file: { path: string }) => void)[],
}));

vi.mock('vscode', () => ({
  EventEmitter: class<T> {
    private readonly listeners = new Set<(value: T) => void>();
    readonly event = (listener: (value: T) => void) => {
      this.listeners.add(listener);
      return { dispose: () => this.listeners.delete(listener) };
    };
    fire(value: T) {
      for (const listener of [...this.listeners]) listener(value);
    }
  },
  Uri: { joinPath: (_: unknown, ...names: string[]) => ({ fsPath: names.join('/') }) },
  workspace: {
    createFileSystemWatcher: () => {
      const listen = (listener: (typeof settings.files)[number]) => settings.files.push(listener);
      return { onDidCreate: listen, onDidChange: listen, onDidDelete: listen };
    },
    onDidChangeConfiguration: (listener: typeof settings.change) => (settings.change = listener),
    onDidGrantWorkspaceTrust: (listener: () => void) => (settings.trust = listener),
    onDidChangeWorkspaceFolders: () => ({ dispose() {} }),
    getConfiguration: () => ({ get: () => '', inspect: () => ({ defaultValue: '' }) }),
  },
}));

vi.mock('vscode-languageclient/node', () => ({
  LanguageClient: class {
    state = 2;
    constructor(
      _id: string,
      _name: string,
      _server: unknown,
      options: { errorHandler: { closed(): void }; initializationOptions: unknown },
    ) {
      wire.initially.push(options.initializationOptions);
      wire.die = () => {
        this.state = 1;
        options.errorHandler.closed();
      };
    }
    start = () => Promise.resolve(void wire.started++);
    sendNotification = (method: string, params: unknown) => {
      wire.notified.push(method);
      wire.told.push(params);
    };
    dispose = () => Promise.resolve(void wire.disposed++);
    onNotification() {}
    warn = (message: string) => wire.logged.push(message);
    onProgress = () => ({ dispose() {} });
    sendRequest = () => wire.answer();
  },
  CloseAction: {},
  ErrorAction: {},
  LSPErrorCodes: { RequestCancelled: -1 },
  ProgressType: class {},
  ResponseError: class {
    constructor(readonly code: number) {}
  },
  State: { Running: 2 },
  TransportKind: {},
}));

const token = {} as CancellationToken;
const nothing = () => undefined;
const requests: Record<string, (server: Server) => Promise<unknown>> = {
  ask: (server) => server.ask({ question: 'Where?' }, nothing, token),
  prefill: (server) => server.prefill(token),
  calibrate: (server) => server.calibrate(token),
  context: (server) => server.promptContents(),
  models: (server) => server.models(),
  download: (server) => server.download('id', nothing, token),
  explain: (server) => server.explain('symbol', token),
  'saved states': (server) => server.savedStates(),
};

describe('files that change', () => {
  it('are told of, but for what git keeps', () => {
    const server = new Server({ subscriptions: [], extensionUri: { fsPath: '' } } as never);
    let changes = 0;
    server.onFilesChanged(() => changes++);
    const [made, saved, deleted] = settings.files.slice(-3);
    for (const tell of [made!, saved!, deleted!]) tell({ path: '/w/a.py' });
    expect(changes).toBe(3);
    made!({ path: '/w/.git/index.lock' });
    expect(changes).toBe(3);
  });
});

describe('a server that dies', () => {
  let server: Server;
  let statuses: Status[];

  beforeEach(() => {
    vi.useFakeTimers();
    server = new Server({ subscriptions: [], extensionUri: { fsPath: '' } } as never);
    statuses = [];
    server.onStatus((status) => statuses.push(status));
    Object.assign(wire, {
      answer: () => new Promise(() => undefined),
      started: 0,
      disposed: 0,
      notified: [],
      told: [],
    });
    return () => vi.useRealTimers();
  });

  it.each(Object.keys(requests))('fails the request %s with what happens now', async (name) => {
    const failed = expect(requests[name]!(server)).rejects.toThrow(
      'The engine stopped unexpectedly and restarts in 1 s. Try again: nothing else is lost.',
    );
    await server.running();
    wire.die();
    await failed;
  });

  it('is a status of its own', async () => {
    await server.running();
    wire.die();
    const message = 'The engine stopped unexpectedly and restarts in 1 s.';
    expect(statuses).toEqual([{ health: 'error', phase: 'failed', message }]);
    expect(wire.logged.at(-1)).toBe(message);
  });

  it('is started again, later each time, but not for ever, and anew when it ran for a while', async () => {
    await server.running();
    const dies = async (seconds: number) => {
      const { started } = wire;
      wire.die();
      await vi.advanceTimersByTimeAsync(seconds * 1000 - 1);
      expect(wire.started).toBe(started);
      await vi.advanceTimersByTimeAsync(1);
      expect(wire.started).toBe(started + 1);
    };
    for (const seconds of [1, 2, 4]) await dies(seconds);
    await vi.advanceTimersByTimeAsync(3_600_000);
    for (const seconds of [1, 2, 4, 8, 16]) await dies(seconds);
    wire.die();
    expect(statuses.at(-1)?.message).toMatch(/several times/);
    await vi.advanceTimersByTimeAsync(3_600_000);
    expect(wire.started).toBe(9);
    await server.running();
    expect(wire.started).toBe(10);
  });

  it('stays away when the editor has stopped it', async () => {
    await server.running();
    await server.stop();
    wire.die();
    await vi.advanceTimersByTimeAsync(3_600_000);
    expect([wire.started, wire.disposed, statuses]).toEqual([1, 1, []]);
  });

  it('is told of settings that it uses when they change, and of no others', async () => {
    const change = (section: string) => settings.change({ affectsConfiguration: (of) => of === section });
    change('longview');
    await server.running();
    change('editor');
    expect(wire.notified).toEqual([]);
    change('longview');
    expect(wire.told).toMatchObject([{ settings: { modelPath: '' } }]);
    change('files.encoding');
    expect(wire.notified).toEqual(Array(2).fill('workspace/didChangeConfiguration'));
  });

  it('is told at once when its workspace becomes trusted', async () => {
    settings.trust();
    await server.running();
    expect(wire.notified).toEqual([]);
    settings.trust();
    expect(wire.notified).toEqual(['longview/trusted']);
  });

  it('begins once, whoever asks first, with its settings and its folders, and ends before it begins again', async () => {
    await Promise.all([server.running(), server.running()]);
    expect([wire.started, wire.disposed]).toEqual([1, 0]);
    const settings = expect.objectContaining({ modelPath: '' }) as unknown;
    expect(wire.initially.at(-1)).toMatchObject({ settings, modelsFolder: 'models', cacheFolder: 'cache' });
    wire.die();
    await vi.advanceTimersByTimeAsync(1000);
    expect([wire.started, wire.disposed]).toEqual([2, 1]);
  });

  it('logs why there are no sources, unless nobody wants them any more', async () => {
    expect(await server.sources('c', token)).toBeUndefined();
    expect(wire.started).toBe(0);
    await server.running();
    wire.logged = [];
    wire.answer = () => Promise.reject(new ResponseError(LSPErrorCodes.RequestCancelled, ''));
    expect(await server.sources('c', token)).toBeUndefined();
    expect(wire.logged).toEqual([]);
    for (const error of [new ResponseError(1, ''), new Error('No memory.')]) {
      wire.answer = () => Promise.reject(error);
      expect(await server.sources('c', token)).toBeUndefined();
    }
    expect(wire.logged).toEqual([expect.stringContaining('No sources'), 'No sources: No memory.']);
    wire.answer = () => Promise.resolve({ sources: [] });
    expect(await server.sources('c', token)).toEqual([]);
  });

  it('leaves answers as they are', async () => {
    wire.answer = () => Promise.resolve({ tokens: 1 });
    expect(await server.prefill(token)).toEqual({ tokens: 1 });
    wire.answer = () => Promise.reject(new Error('There is no model.'));
    await expect(server.prefill(token)).rejects.toThrow('There is no model.');
  });
});
