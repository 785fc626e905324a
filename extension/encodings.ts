/** What the editor's own settings say of encodings, for the server: by folder and by language. */
import { extensions, workspace, type Uri } from 'vscode';
import type { FileEncoding } from '../server/protocol';

interface Manifest {
  contributes?: { languages?: { id: string; extensions?: string[]; filenames?: string[] }[] };
}

/** How names of a language's files end, by the extensions and `files.associations`, of which only such patterns are taken. */
function endingsOf(languageId: string): string[] {
  const declared = extensions.all
    .flatMap(({ packageJSON }) => (packageJSON as Manifest).contributes?.languages ?? [])
    .filter(({ id }) => id === languageId);
  const associations = workspace.getConfiguration('files').get<Record<string, string>>('associations') ?? {};
  const associated = Object.keys(associations).filter(
    (pattern) => associations[pattern] === languageId && /^\*?[^*?[{/]+$/.test(pattern),
  );
  return [
    ...declared.flatMap(({ extensions = [], filenames = [] }) => [...extensions, ...filenames]),
    ...associated.map((pattern) => pattern.replace('*', '')),
  ];
}

function ofFolder(uri: Uri): FileEncoding[] {
  const folder = uri.fsPath;
  const files = workspace.getConfiguration('files', uri);
  const languages = (files.inspect('encoding')?.languageIds ?? []).map((languageId) => {
    const encoding = workspace.getConfiguration('files', { uri, languageId }).get<string>('encoding', '');
    return { folder, endings: endingsOf(languageId), encoding };
  });
  return [...languages, { folder, encoding: files.get<string>('encoding', '') }];
}

/** `files.encoding`, languages before their folder. */
export function fileEncodings(): FileEncoding[] {
  return (workspace.workspaceFolders ?? []).flatMap(({ uri }) => ofFolder(uri));
}
