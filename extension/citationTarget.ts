/** Opens the place that a citation or a source names; nothing outside the workspace's folders. */
import { Position, Range, Uri, window, workspace } from 'vscode';
import type { Citation, Source } from '../server/protocol';
import { plainText } from './plainText';

export async function openPlace({ uri, span, path }: Citation | Source): Promise<void> {
  const target = Uri.parse(uri, true);
  if (target.scheme !== 'file' || !workspace.getWorkspaceFolder(target)) {
    void window.showWarningMessage(plainText(`${path} does not lie in this workspace.`));
    return;
  }
  const start = new Position(Math.max(0, (span?.startLine ?? 1) - 1), 0);
  const end = new Position(Math.max(start.line, (span?.endLine ?? 1) - 1), 0);
  try {
    const document = await workspace.openTextDocument(target);
    const selection = new Range(start, document.lineAt(Math.min(end.line, document.lineCount - 1)).range.end);
    await window.showTextDocument(document, {
      selection: span ? selection : undefined,
      preserveFocus: false,
    });
  } catch {
    void window.showWarningMessage(
      plainText(`${path} could not be opened: it may have been moved or deleted.`),
    );
  }
}
