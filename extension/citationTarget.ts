/** Opens the place that a citation or a source names; nothing outside the workspace's folders. */
import { NotebookRange, Position, Range, Uri, window, workspace } from 'vscode';
import type { Citation, Source } from '../server/protocol';
import { movedSpan } from './movedSpan';
import { cellAtLine } from './notebookCell';
import { plainText } from './plainText';

/** A notebook at the cell of a line; false where it cannot be opened as one: then its text is. */
async function openCell(uri: Uri, text: string, line: number | undefined): Promise<boolean> {
  const cell = line === undefined ? 0 : cellAtLine(text, line);
  if (cell === undefined) return false;
  try {
    const notebook = await workspace.openNotebookDocument(uri);
    await window.showNotebookDocument(notebook, { selections: [new NotebookRange(cell, cell + 1)] });
    return true;
  } catch {
    return false;
  }
}

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
    if (path.endsWith('.ipynb') && (await openCell(target, document.getText(), span?.startLine))) return;
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
