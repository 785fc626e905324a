/** The pick list of models, and what a choice comes to. */
import { beforeEach, expect, it, vi } from 'vitest';
import { chooseModel } from '../../../extension/modelPicker';

interface Item {
  label: string;
  description?: string;
  detail?: string;
}

const editor = vi.hoisted(() => ({
  modelPath: '',
  items: [] as Item[],
  /** The user's choice, once the items are there. */
  choose: (_items: Item[]): Item | undefined => undefined,
  warnings: [] as string[],
  commands: [] as unknown[][],
}));

vi.mock('vscode', () => ({
  commands: { executeCommand: (...command: unknown[]) => editor.commands.push(command) },
  ProgressLocation: {},
  QuickPickItemKind: {},
  ThemeIcon: class {},
  window: {
    createQuickPick: () => {
      const picker = {
        items: [] as Item[],
        selectedItems: [] as Item[],
        show() {},
        hide() {},
        dispose() {},
        onDidTriggerItemButton() {},
        onDidHide() {},
        onDidAccept(accept: () => void) {
          editor.items = picker.items;
          const chosen = editor.choose(picker.items);
          picker.selectedItems = chosen ? [chosen] : [];
          accept();
        },
      };
      return picker;
    },
    withProgress: (
      { title, cancellable }: { title: string; cancellable?: boolean },
      work: (progress: unknown, token?: string) => Promise<void>,
    ) => work({}, cancellable ? `Cancel ${title}` : undefined),
    showWarningMessage: (message: string, button: string) => {
      editor.warnings.push(message);
      return Promise.resolve(button);
    },
  },
  workspace: {
    getConfiguration: () => ({
      get: (key: string) => (key === 'model.path' ? editor.modelPath : ''),
      inspect: () => ({ defaultValue: '' }),
    }),
  },
}));

let used: string[];
/** What stops the loading of each. */
let stops: unknown[];

beforeEach(() => {
  Object.assign(editor, { modelPath: '', items: [], warnings: [], commands: [], choose: () => undefined });
  used = [];
  stops = [];
});

const builtIn = { name: 'small', path: '/ext/small.gguf', bytes: 1e8, builtIn: true, current: true };
const server = {
  models: () => Promise.resolve({ installed: [builtIn], catalog: [] }),
  useModel: (path: string, token: unknown) => {
    used.push(path);
    stops.push(token);
    return Promise.resolve();
  },
};
const withDetail = (detail: string) => (items: Item[]) => items.find((item) => item.detail === detail);

it('draws no icon that a file is called after', async () => {
  const path = '/m/$(trash)/$(zap).gguf';
  const models = { installed: [{ ...builtIn, name: '$(zap)', path, current: false }], catalog: [] };
  await chooseModel({ models: () => Promise.resolve(models) } as never);
  const shown = editor.items.find(({ detail }) => detail?.startsWith('/m/'))!;
  expect([shown.label, shown.detail].join()).not.toContain('$(');
});

it('says above what needs a GPU where there is no code for one', async () => {
  const list = async (noGpu?: string) => {
    await chooseModel({
      models: () => Promise.resolve({ installed: [builtIn], catalog: [], noGpu }),
    } as never);
    return editor.items.map(({ label }) => label).filter((label) => label.startsWith('Download'));
  };
  expect(await list('On macOS this runs on the CPU.')).toEqual(['Download. On macOS this runs on the CPU.']);
  expect(await list()).toEqual(['Download']);
});

it('can be stopped while it loads what was chosen', async () => {
  editor.choose = withDetail(builtIn.path);
  await chooseModel(server as never);
  expect(stops).toEqual(['Cancel Loading small']);
});

it('says no more of a choice that lasts', async () => {
  editor.choose = withDetail(builtIn.path);
  await chooseModel(server as never);
  expect(used).toEqual([builtIn.path]);
  expect(editor.warnings).toEqual([]);
});

it('knows the one of the setting by another spelling of its path', async () => {
  editor.modelPath = '/ext//./small.gguf';
  editor.choose = withDetail(builtIn.path);
  await chooseModel(server as never);
  expect(editor.items.filter(({ description }) => description === 'longview.model.path')).toEqual([]);
  expect(editor.warnings).toEqual([]);
});

it('lists the one of the setting, and warns that it comes back when another is chosen', async () => {
  editor.modelPath = '/m/mine.gguf';
  editor.choose = withDetail(builtIn.path);
  await chooseModel(server as never);
  expect(editor.warnings).toEqual([expect.stringContaining('longview.model.path names another model')]);
  expect(editor.commands).toEqual([['workbench.action.openSettings', 'longview.model.path']]);
  editor.choose = withDetail('/m/mine.gguf');
  await chooseModel(server as never);
  expect(used).toEqual([builtIn.path, '/m/mine.gguf']);
  expect(editor.warnings).toHaveLength(1);
});
