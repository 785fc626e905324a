/** A folder of its own for a test. */
import { mkdtempSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { writeFolder } from '../reference';

export function repository(files: [name: string, content: string | Buffer][]): string {
  const folder = mkdtempSync(path.join(tmpdir(), 'longview-scan-'));
  writeFolder(folder, files);
  return folder;
}
