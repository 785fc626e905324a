/** The `longview.*` settings, as the server wants them. Defaults stand in package.json alone. */
import { workspace } from 'vscode';
import type { Settings } from '../server/protocol';

export function readSettings(): Settings {
  const config = workspace.getConfiguration('longview');
  const get = <T>(key: string) => config.get<T>(key) as T;
  return {
    modelPath: get<string>('model.path').trim(),
    device: get<Settings['device']>('device'),
    threads: get<number>('threads'),
    include: get<string[]>('files.include'),
    exclude: get<string[]>('files.exclude'),
    maxFileKiB: get<number>('files.maxKiB'),
    hover: get<boolean>('hover.enabled'),
    maxAnswerTokens: get<number>('answer.maxTokens'),
  };
}
