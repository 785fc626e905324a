/** The `longview.*` settings, as the server wants them, and the editor's encodings. Defaults and bounds stand in package.json alone. */
import { homedir } from 'node:os';
import { isDeepStrictEqual } from 'node:util';
import { ConfigurationTarget, workspace } from 'vscode';
import { contributes } from '../package.json';
import type { MoreRoom, Settings } from '../server/protocol';
import { fileEncodings } from './encodings';

interface Bounds {
  type: string | string[];
  minimum?: number;
  maximum?: number;
}
const properties: Record<string, Bounds> = contributes.configuration.properties;

const isStrings = (value: unknown): value is string[] =>
  Array.isArray(value) && value.every((entry) => typeof entry === 'string');

/** Whether a value has a default's type: the editor warns of one that has not, and hands it out all the same. */
function isAlike<T>(value: unknown, defaultValue: T): value is T {
  return Array.isArray(defaultValue) ? isStrings(value) : typeof value === typeof defaultValue;
}

/** The editor warns of a number out of its bounds too. */
function within({ type, minimum = -Infinity, maximum = Infinity }: Bounds, value: number): number {
  return Math.min(Math.max(type === 'integer' ? Math.round(value) : value, minimum), maximum);
}

/** People write `~/models` in settings, or `~\models`, where no shell reads it. */
const atHome = (file: string) => file.replace(/^~(?=[/\\]|$)/, () => homedir());

/** A value of another type counts as the default, a number out of its bounds as the nearest in them. */
export function readSettings(): Settings {
  const config = workspace.getConfiguration('longview');
  const get = <T>(key: string): T => {
    const value = config.get(key);
    const { defaultValue } = config.inspect<T>(key)!;
    return isAlike(value, defaultValue!) ? value : defaultValue!;
  };
  const number = (key: string) => within(properties[`longview.${key}`]!, get<number>(key));
  return {
    modelPath: atHome(get<string>('model.path').trim()),
    device: get<Settings['device']>('device'),
    gpuWeights: get<Settings['gpuWeights']>('gpu.weights'),
    threads: number('threads'),
    windowStretch: number('window.stretch'),
    prefillMode: get<Settings['prefillMode']>('prefill.mode'),
    prefillTarget: get<Settings['prefillTarget']>('prefill.target'),
    include: get<string[]>('files.include'),
    exclude: get<string[]>('files.exclude'),
    maxFileKiB: number('files.maxSize'),
    encodings: fileEncodings(),
    hover: get<boolean>('hover.enabled'),
    maxAnswerTokens: number('answer.maxTokens'),
    cacheMaxGiB: number('cache.maxSize'),
    cacheFormat: get<Settings['cacheFormat']>('cache.format'),
  };
}

const writeToWorkspace = async (key: string, value: unknown) =>
  workspace.getConfiguration().update(key, value, ConfigurationTarget.Workspace);

/** The setting of this workspace that makes room. */
export const roomSetting = (room: MoreRoom) =>
  room.by === 'stretch'
    ? { key: 'longview.window.stretch', value: room.factor }
    : { key: 'longview.cache.format', value: 'q4' };

/** Sets it. Returns what takes that back, unless it was set again since. */
export async function makeRoom(room: MoreRoom): Promise<() => Promise<void>> {
  const { key, value } = roomSetting(room);
  const ofWorkspace = () => workspace.getConfiguration().inspect(key)?.workspaceValue;
  const before = ofWorkspace();
  await writeToWorkspace(key, value);
  return async () => {
    if (ofWorkspace() === value) await writeToWorkspace(key, before);
  };
}

/**
 * Adds a folder, as it stands in the prompt, to what this workspace leaves out. Returns what takes it back, and leaves what
 * was added since.
 */
export async function excludeFromPrompt(folder: string): Promise<() => Promise<void>> {
  const key = 'longview.files.exclude';
  const pattern = `/${folder.replace(/[\\*?[\]!#]/g, '\\$&')}/`;
  await writeToWorkspace(key, [...readSettings().exclude, pattern]);
  return async () => {
    const now = workspace.getConfiguration().inspect<string[]>(key);
    if (!isStrings(now?.workspaceValue)) return;
    const rest = now.workspaceValue.filter((other) => other !== pattern);
    const isInherited = isDeepStrictEqual(rest, now.globalValue ?? now.defaultValue);
    await writeToWorkspace(key, isInherited ? undefined : rest);
  };
}
