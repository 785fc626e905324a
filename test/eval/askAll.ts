/** Questions about one folder, each in a conversation of its own, by one server that reads it once. */
import type { Settings } from '../../server/protocol';
import { ServerClient, type Answer } from './serverClient';

export async function askAll(
  folder: string,
  questions: string[],
  settings: Partial<Settings>,
): Promise<Answer[]> {
  const server = await ServerClient.start(folder, settings);
  try {
    const answers: Answer[] = [];
    for (const question of questions) answers.push(await server.ask(question));
    return answers;
  } finally {
    await server.stop();
  }
}
