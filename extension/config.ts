/** The `longview.*` settings, as the server wants them. Defaults stand in package.json alone. */
import { isDeepStrictEqual } from 'node:util';
import { ConfigurationTarget, workspace } from 'vscode';
import type { Settings } from '../server/protocol';

export function readSettings(): Settings {
  const config = workspace.getConfiguration('longview');
  const get = <T>(key: string) => config.get<T>(key) as T;
  return {
    modelPath: get<string>('model.path').trim(),
    device: get<Settings['device']>('device'),
    gpuWeights: get<Settings['gpuWeights']>('gpu.weights'),
    threads: get<number>('threads'),
    prefillMode: get<Settings['prefillMode']>('prefill.mode'),
    prefillTarget: get<Settings['prefillTarget']>('prefill.target'),
    include: get<string[]>('files.include'),
    exclude: get<string[]>('files.exclude'),
    maxFileKiB: get<number>('files.maxKiB'),
    hover: get<boolean>('hover.enabled'),
    maxAnswerTokens: get<number>('answer.maxTokens'),
    cacheMaxGiB: get<number>('cache.maxGiB'),
    cacheFormat: get<Settings['cacheFormat']>('cache.format'),
  };
}

/**
 * Adds a folder, as it stands in the prompt, to what this workspace leaves out. Returns what takes it back, and leaves what
 * was added since.
 */
export async function excludeFromPrompt(folder: string): Promise<() => Promise<void>> {
  const key = 'longview.files.exclude';
  const write = async (value: string[] | undefined) =>
    workspace.getConfiguration().update(key, value, ConfigurationTarget.Workspace);
  const pattern = `/${folder.replace(/[\\*?[\]!#]/g, '\\$&')}/`;
  await write([...readSettings().exclude, pattern]);
  return () => {
    const now = workspace.getConfiguration().inspect<string[]>(key);
    const rest = now?.workspaceValue?.filter((other) => other !== pattern);
    return write(isDeepStrictEqual(rest, now?.globalValue ?? now?.defaultValue) ? undefined : rest);
  };
}
