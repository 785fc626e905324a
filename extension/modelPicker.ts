/** Choosing a model: installed ones, downloads, or a file. */
import { basename, relative } from 'node:path';
import {
  commands,
  ProgressLocation,
  QuickPickItemKind,
  ThemeIcon,
  window,
  type QuickInputButton,
  type QuickPickItem,
} from 'vscode';
import type { CatalogEntry, ModelsResult } from '../server/protocol';
import { count } from './chat/count';
import type { Server } from './client';
import { readSettings } from './config';
import { plainText } from './plainText';

interface Item extends QuickPickItem {
  run?: () => Promise<void>;
  /** What its button does. */
  remove?: () => Promise<void>;
}

const trash = (what: string): QuickInputButton => ({
  iconPath: new ThemeIcon('trash'),
  tooltip: `Delete ${what} from the disk`,
});

/** Whether two paths are one: a setting may have other slashes, and on Windows another case. */
const isSame = (one: string, other: string) => relative(one, other) === '';

const modelSetting = 'longview.model.path';

const size = (bytes: number) =>
  bytes < 1e9 ? `${Math.round(bytes / 1e6)} MB` : `${(bytes / 1e9).toFixed(1)} GB`;

export async function chooseModel(server: Server): Promise<void> {
  const picker = window.createQuickPick<Item>();
  picker.title = 'Longview: Choose a Model';
  picker.placeholder = 'The model that reads this repository';
  picker.matchOnDetail = true;
  picker.busy = true;
  picker.show();
  try {
    picker.items = items(await server.models(), server);
  } catch (error) {
    picker.hide();
    throw error;
  } finally {
    picker.busy = false;
  }
  const chosen = await new Promise<Item | undefined>((resolve) => {
    picker.onDidAccept(() => resolve(picker.selectedItems[0]));
    picker.onDidTriggerItemButton(({ item }) => resolve({ ...item, run: item.remove }));
    picker.onDidHide(() => resolve(undefined));
  });
  picker.dispose();
  await chosen?.run?.();
}

/** While another one is in use, the server does not list it. */
function itemOfSetting(named: string, server: Server): Item {
  const name = basename(named);
  return {
    label: plainText(name),
    description: modelSetting,
    detail: plainText(named),
    run: () => use(server, named, name),
  };
}

function items({ installed, catalog, noGpu }: ModelsResult, server: Server): Item[] {
  const named = readSettings().modelPath;
  const heading = (label: string): Item => ({ label, kind: QuickPickItemKind.Separator });
  return [
    heading('On this machine'),
    ...installed.map(({ name, path, bytes, builtIn, current, deletable }) => ({
      label: `${current ? '$(check) ' : ''}${plainText(name)}`,
      description: `${size(bytes)}${builtIn ? ' · built in: finds and quotes' : ''}`,
      detail: plainText(path),
      run: () => use(server, path, name),
      ...(deletable && { buttons: [trash('this model')], remove: () => remove(server, path, name, bytes) }),
    })),
    ...(named && installed.every(({ path }) => !isSame(path, named)) ? [itemOfSetting(named, server)] : []),
    { label: '$(folder-opened) Choose a model file…', detail: 'A .gguf file', run: () => chooseFile(server) },
    heading(noGpu === undefined ? 'Download' : `Download. ${noGpu}`),
    ...catalog
      .filter((entry) => !entry.installed)
      .map((entry) => ({
        label: `$(cloud-download) ${entry.name}`,
        description: `${size(entry.bytes)} · ${entry.licence} · window ${count(entry.window)}`,
        detail: `${entry.goodFor}. Needs ${entry.needs}.`,
        run: () => download(server, entry),
        ...(entry.part && partly(server, entry.name, entry.part)),
      })),
  ];
}

/** What is there of a download that was stopped: it goes on from there, or is deleted. */
function partly(server: Server, name: string, { path, bytes }: { path: string; bytes: number }) {
  return {
    detail: `${size(bytes)} are here: the download goes on from there.`,
    buttons: [trash('this part of the model')],
    remove: () => remove(server, path, `the part of ${name} that is here`, bytes),
  };
}

async function use(server: Server, path: string, name: string): Promise<void> {
  await window.withProgress(
    { location: ProgressLocation.Notification, title: plainText(`Loading ${name}`), cancellable: true },
    (_progress, token) => server.useModel(path, token),
  );
  const named = readSettings().modelPath;
  if (named === '' || isSame(named, path)) return;
  const warning = `${modelSetting} names another model: from the next window on, that is used again.`;
  if ((await window.showWarningMessage(warning, 'Open Settings')) === 'Open Settings')
    await commands.executeCommand('workbench.action.openSettings', modelSetting);
}

async function remove(server: Server, path: string, name: string, bytes: number): Promise<void> {
  const question = `Delete ${name} (${size(bytes)}) from this disk?`;
  const options = { modal: true, detail: path };
  if ((await window.showWarningMessage(question, options, 'Delete')) === 'Delete')
    await server.deleteModel(path);
}

async function chooseFile(server: Server): Promise<void> {
  const [file] =
    (await window.showOpenDialog({ title: 'A model file', filters: { 'Model (GGUF)': ['gguf'] } })) ?? [];
  if (file) await use(server, file.fsPath, file.path.split('/').at(-1) ?? 'the model');
}

async function download(server: Server, { id, name }: CatalogEntry): Promise<void> {
  const path = await window.withProgress(
    { location: ProgressLocation.Notification, title: `Downloading ${name}`, cancellable: true },
    (progress, token) => {
      let shown = 0;
      return server.download(
        id,
        ({ done, total }) => {
          const percent = (100 * done) / total;
          progress.report({ increment: percent - shown, message: `${size(done)} of ${size(total)}` });
          shown = percent;
        },
        token,
      );
    },
  );
  await use(server, path, name);
}
