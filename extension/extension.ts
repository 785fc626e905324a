/** Builds the pieces. The server starts with the first need of it. */
import { window, type ExtensionContext } from 'vscode';
import { ChatView, viewId } from './chatView';
import { Server } from './client';
import { registerCommands } from './commands';
import { readSettings } from './config';
import { plainText } from './plainText';
import { PromptContents } from './promptContents';
import { createStatusBar } from './statusBar';

let server: Server | undefined;

export function activate(context: ExtensionContext): void {
  try {
    server = new Server(context);
    const chat = new ChatView(context, server);
    const contents = new PromptContents(server);
    createStatusBar(context, server);
    context.subscriptions.push(
      window.registerWebviewViewProvider(viewId, chat),
      contents.register(),
      ...registerCommands(server, chat, contents),
    );
    // Hovers come from the server, so it has to run for them.
    if (readSettings().hover) void server.running().catch(() => undefined);
  } catch (error) {
    void window.showErrorMessage(plainText(`Longview could not start: ${(error as Error).message}`));
    throw error;
  }
}

export async function deactivate(): Promise<void> {
  await server?.stop();
}
