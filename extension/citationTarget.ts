/** Opens the place that a citation or a source names; nothing outside the workspace's folders. */
import { Position, Range, Uri, window, workspace } from 'vscode';
import type { Citation, Source } from '../server/protocol';
import { movedSpan } from './movedSpan';
import { plainText } from './plainText';

export async function openPlace(place: Citation | Source): Promise<void> {
  const { uri, path } = place;
  const target = Uri.parse(uri, true);
  if (target.scheme !== 'file' || !workspace.getWorkspaceFolder(target)) {
    void window.showWarningMessage(plainText(`${path} does not lie in this workspace.`));
    return;
  }
  try {
    const document = await workspace.openTextDocument(target);
    const span = movedSpan(document.getText(), place);
    const start = new Position(Math.max(0, (span?.startLine ?? 1) - 1), 0);
    const end = new Position(Math.max(start.line, (span?.endLine ?? 1) - 1), 0);
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
