/** Questions about one folder, each in a conversation of its own, by one process of the product that reads it once. */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { askTerminal } from './askTerminal';
import { projectRoot, ServerClient, type EvalAnswer } from './serverClient';

export type Door = 'server' | 'terminal';

/** The language server where it is built, else the terminal command: the same services behind either. */
export function bestDoor(): Door {
  return existsSync(join(projectRoot, 'dist', 'server.js')) ? 'server' : 'terminal';
}

export async function askAll(
  door: Door,
  folder: string,
  questions: string[],
  options: { model?: string; threads?: number },
): Promise<EvalAnswer[]> {
  if (door === 'terminal') return askTerminal(folder, questions, options);
  const settings = { modelPath: options.model ?? '', threads: options.threads ?? 0 };
  const server = await ServerClient.start(folder, settings);
  try {
    const answers: EvalAnswer[] = [];
    for (const question of questions) answers.push(await server.ask(question));
    return answers;
  } finally {
    await server.stop();
  }
}
