/** A read-only document: which files the model reads, their weights, and what is left out and why. */
import {
  EventEmitter,
  Uri,
  window,
  workspace,
  type Disposable,
  type TextDocumentContentProvider,
} from 'vscode';
import type { ContextResult } from '../server/protocol';
import type { Server } from './client';
import { roomSetting } from './config';
import { count } from './chat/count';
import { leftOut, leftOutLine, roomText } from './chat/leftOut';

const scheme = 'longview';
const uri = Uri.parse(`${scheme}:/What is in the prompt.md`);

export class PromptContents implements TextDocumentContentProvider {
  private text = '';
  private readonly changed = new EventEmitter<Uri>();
  readonly onDidChange = this.changed.event;

  constructor(private readonly server: Server) {}

  register(): Disposable {
    return workspace.registerTextDocumentContentProvider(scheme, this);
  }

  provideTextDocumentContent(): string {
    return this.text;
  }

  async show(): Promise<void> {
    this.text = describe(await this.server.promptContents());
    this.changed.fire(uri);
    await window.showTextDocument(await workspace.openTextDocument(uri), { preview: true });
  }
}

export function describe(contents: ContextResult): string {
  const { files, skipped, usedTokens, reservedTokens, window, room } = contents;
  const over = skipped.filter(({ reason }) => reason === 'over-budget').length;
  const percent = Math.round((100 * usedTokens) / window);
  const folders = new Map<string, number>();
  for (const { path, tokens } of files) {
    const folder = path.includes('/') ? path.slice(0, path.lastIndexOf('/')) : '.';
    folders.set(folder, (folders.get(folder) ?? 0) + tokens);
  }
  const row = (tokens: number, name: string) => `${count(tokens).padStart(10)}  ${name}`;
  return [
    '# What is in the prompt',
    '',
    `${count(files.length)} of ${count(files.length + over)} files, ${count(usedTokens)} of ${count(window)} tokens (${percent} %); ` +
      `${count(reservedTokens)} are kept free for questions and answers.`,
    '',
    '## Folders, by tokens',
    '',
    ...[...folders].sort((a, b) => b[1] - a[1]).map(([folder, tokens]) => row(tokens, `${folder}/`)),
    '',
    '## Files, in the order in which they are read',
    '',
    ...files.map(({ path, tokens }) => row(tokens, path)),
    '',
    '## Left out',
    '',
    ...(room ? [`${roomText(room)} The setting is \`${roomSetting(room).key}\`.`, ''] : []),
    ...leftOut(skipped).flatMap(([heading, files]) => [`### ${heading}`, '', ...files.map(leftOutLine), '']),
  ].join('\n');
}
