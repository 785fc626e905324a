/** What a command ends with, in an editor that does as the test says. */
import { beforeEach, describe, expect, it, vi } from 'vitest';
import { registerCommands } from '../../../extension/commands';

const editor = vi.hoisted(() => ({
  hover: true,
  scheme: 'file',
  cursorOn: 'connect',
  /** Commands and messages, in their order. */
  done: [] as string[],
  registered: new Map<string, (argument?: unknown) => Promise<void>>(),
}));

vi.mock('../../../extension/client', () => ({ isCancelled: () => false }));
vi.mock('vscode', () => ({
  commands: {
    registerCommand: (id: string, run: () => Promise<void>) => editor.registered.set(id, run),
    executeCommand: (id: string) => Promise.resolve(void editor.done.push(id)),
  },
  ProgressLocation: {},
  ThemeIcon: class {},
  window: {
    get activeTextEditor() {
      const { scheme, cursorOn } = editor;
      const document = { uri: { scheme }, getWordRangeAtPosition: () => ({}), getText: () => cursorOn };
      return { document, selection: {} };
    },
    withProgress: (_options: unknown, work: () => Promise<unknown>) => work(),
    showInformationMessage: (message: string) => editor.done.push(message),
  },
  workspace: {
    getConfiguration: () => ({
      get: () => editor.hover,
      inspect: (key: string) => ({ defaultValue: key === 'hover.enabled' ? false : '' }),
    }),
  },
}));

let read = { tokens: 1200, reusedTokens: 0 };
const server = {
  explain: (symbol: string) => Promise.resolve(`What ${symbol} does.`),
  prefill: () => Promise.resolve(read),
  onStatus: () => ({ dispose() {} }),
};
registerCommands(server as never, { markdown: '' } as never, {} as never);
const explain = async (symbol?: string) => {
  await editor.registered.get('longview.explain')!(symbol);
  return editor.done;
};

beforeEach(() => {
  Object.assign(editor, { hover: true, scheme: 'file', cursorOn: 'connect', done: [] });
});

describe('an explanation', () => {
  it('is a new hover, at the cursor, for the symbol that it is on', async () => {
    expect(await explain()).toEqual(['editor.action.hideHover', 'editor.action.showHover']);
    editor.done = [];
    expect(await explain('connect')).toEqual(['editor.action.hideHover', 'editor.action.showHover']);
  });

  it('is a message for a symbol somewhere else, which the mouse was over', async () => {
    expect(await explain('backoff')).toEqual(['editor.action.hideHover', 'What backoff does.']);
  });

  it.each([{ hover: false }, { scheme: 'untitled' }, { cursorOn: 'ab' }])(
    'is a message where no hover of ours would come: %o',
    async (change) => {
      Object.assign(editor, change);
      expect((await explain()).at(-1)).toBe(`What ${editor.cursorOn} does.`);
    },
  );
});

it('says that the repository was read before, where there was nothing to do', async () => {
  await editor.registered.get('longview.readNow')!();
  expect(editor.done).toEqual([]);
  read = { tokens: 1200, reusedTokens: 1200 };
  await editor.registered.get('longview.readNow')!();
  expect(editor.done).toEqual([expect.stringMatching(/^All 1,200 tokens .* were read before/)]);
});

it('exports no empty chat', async () => {
  await editor.registered.get('longview.exportChat')!();
  expect(editor.done).toEqual([expect.stringMatching(/^There is no chat to export/)]);
});
