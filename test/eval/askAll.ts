/** Questions about one folder, each in a conversation of its own, by one server that reads it once. */
import type { Settings, SourcesResult } from '../../server/protocol';
import { ServerClient, type Answer } from './serverClient';

export async function askAll(
  folder: string,
  questions: string[],
  settings: Partial<Settings>,
): Promise<(Answer & SourcesResult)[]> {
  const server = await ServerClient.start(folder, settings);
  try {
    const answers: (Answer & SourcesResult)[] = [];
    for (const question of questions) {
      const answer = await server.ask(question);
      answers.push({ ...answer, ...(await server.sources(answer.conversationId)) });
    }
    return answers;
  } finally {
    await server.stop();
  }
}
