/** The status bar item: what the engine does, and the way to its commands. */
import { MarkdownString, StatusBarAlignment, ThemeColor, window, type ExtensionContext } from 'vscode';
import type { Status } from '../server/protocol';
import { count } from './chat/count';
import type { Server } from './client';

export function createStatusBar(context: ExtensionContext, server: Server): void {
  const item = window.createStatusBarItem('longview.status', StatusBarAlignment.Right, 90);
  item.name = 'Longview';
  item.command = 'longview.showMenu';
  item.text = '$(telescope) Longview';
  item.tooltip = 'Longview: ask about this repository';
  item.show();
  context.subscriptions.push(
    item,
    server.onStatus((status) => {
      item.text = text(status);
      item.tooltip = tooltip(status);
      item.accessibilityInformation = { label: `Longview: ${status.message}` };
      item.backgroundColor =
        status.health === 'error' ? new ThemeColor('statusBarItem.errorBackground') : undefined;
    }),
  );
}

function text({ phase, health, prefill }: Status): string {
  if (health === 'error') return '$(error) Longview';
  switch (phase) {
    case 'starting':
    case 'scanning':
    case 'tokenizing':
      return '$(loading~spin) Longview';
    case 'reading':
      return prefill
        ? `$(loading~spin) Reading ${Math.floor((100 * prefill.done) / Math.max(prefill.total, 1))} %`
        : '$(loading~spin) Reading';
    case 'answering':
      return '$(loading~spin) Answering';
    default:
      return '$(telescope) Longview';
  }
}

function tooltip({ health, phase, message, model, device, context, saved }: Status): MarkdownString {
  // A model that is ready has lines of its own.
  const lines = health === 'ok' && phase === 'ready' && model ? [] : [message];
  if (model) lines.push(`Model: ${model.name}, window ${count(model.window)} tokens`);
  if (device) lines.push(`Device: ${device}`);
  if (context)
    lines.push(
      `In the prompt: ${count(context.files)} of ${count(context.files + context.skipped)} files, ${count(context.tokens)} tokens`,
    );
  if (saved?.note) lines.push(saved.note);
  else if (saved && saved.total > 0)
    lines.push(`Saved on disk: ${count(saved.tokens)} of ${count(saved.total)} tokens`);
  const markdown = new MarkdownString();
  for (const line of lines) markdown.appendText(`${line}\n\n`);
  return markdown;
}
