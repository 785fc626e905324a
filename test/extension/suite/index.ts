/** Runs inside VS Code's extension host: what the editor itself knows of the extension. */
import assert from 'node:assert/strict';
import path from 'node:path';
import Mocha from 'mocha';
import * as vscode from 'vscode';
import { openPlace } from '../../../extension/citationTarget';

const id = 'longview.longview';

interface WalkthroughStep {
  id: string;
  description: string;
  media: { markdown: string };
  completionEvents: string[];
}

function tests(): void {
  const extension = () => vscode.extensions.getExtension(id)!;
  const manifest = () =>
    extension().packageJSON as {
      contributes: {
        commands: { command: string }[];
        configuration: { properties: Record<string, object> };
        walkthroughs: { steps: WalkthroughStep[] }[];
      };
    };

  it('is activated, fast, and without starting its server', async () => {
    const start = performance.now();
    await extension().activate();
    console.log(`      activation: ${(performance.now() - start).toFixed(0)} ms`);
    assert.ok(extension().isActive);
  });

  it('has every command that its manifest names, and no other', async () => {
    const registered = (await vscode.commands.getCommands(true)).filter((name) =>
      /^longview\.\w+$/.test(name),
    );
    const declared = manifest().contributes.commands.map(({ command }) => command);
    assert.deepEqual(registered.filter((name) => name !== 'longview.chat').sort(), declared.sort());
  });

  it('has the defaults of its settings', () => {
    const settings = vscode.workspace.getConfiguration();
    for (const [name, { default: value }] of Object.entries(
      manifest().contributes.configuration.properties as Record<string, { default: unknown }>,
    ))
      assert.deepEqual(settings.get(name), value, name);
  });

  it('has what its walkthrough shows and leads to', async () => {
    const known = await vscode.commands.getCommands(true);
    const steps = manifest().contributes.walkthroughs.flatMap((walkthrough) => walkthrough.steps);
    assert.ok(steps.length > 0);
    for (const { id, description, media, completionEvents } of steps) {
      const links = [...description.matchAll(/\]\(command:([^)?]+)/g)].map((match) => match[1]!);
      assert.equal(links.length, 1, id);
      assert.ok(known.includes(links[0]!), `${id}: ${links[0]}`);
      assert.deepEqual(completionEvents, [`onCommand:${links[0]}`], id);
      const { size } = await vscode.workspace.fs.stat(
        vscode.Uri.joinPath(extension().extensionUri, media.markdown),
      );
      assert.ok(size > 0, media.markdown);
    }
  });

  it('describes the prompt in a document', async () => {
    await vscode.commands.executeCommand('longview.showPromptContents');
    const document = vscode.window.activeTextEditor?.document;
    assert.equal(document?.uri.scheme, 'longview');
    assert.match(document.getText(), /\d+ of \d+ files/);
  });

  it('reads files in the encodings that the editor has for their languages and folders', async () => {
    const [folder] = vscode.workspace.workspaceFolders!;
    // `size`, in Russian, in windows-1251.
    const text = Buffer.from('// \xf0\xe0\xe7\xec\xe5\xf0\nint size;\n', 'latin1');
    for (const name of ['size.c', 'size.go'])
      await vscode.workspace.fs.writeFile(vscode.Uri.joinPath(folder!.uri, name), text);
    const read = async () => {
      await vscode.commands.executeCommand('longview.showPromptContents');
      const contents = vscode.window.activeTextEditor!.document.getText().split('## Left out')[0]!;
      return ['size.c', 'size.go'].filter((name) => contents.includes(` ${name}\n`)).join();
    };
    // A document that is open already shows its new text a moment later.
    const untilRead = async (names: string) => {
      while ((await read()) !== names) await new Promise(setImmediate);
    };
    const files = (languageId?: string) => {
      const { uri } = folder!;
      return vscode.workspace.getConfiguration('files', languageId ? { uri, languageId } : uri);
    };
    const { Workspace } = vscode.ConfigurationTarget;
    await untilRead('');
    await files('c').update('encoding', 'windows1251', Workspace, true);
    await untilRead('size.c');
    await files().update('encoding', 'windows1251', Workspace);
    await untilRead('size.c,size.go');
    await files('c').update('encoding', 'utf8', Workspace, true);
    await untilRead('size.go');
    for (const name of ['size.c', 'size.go'])
      await vscode.workspace.fs.delete(vscode.Uri.joinPath(folder!.uri, name));
    await files('c').update('encoding', undefined, Workspace, true);
    await files().update('encoding', undefined, Workspace);
  });

  it('opens a notebook at the cell of a line, and its text where the line is in none', async () => {
    const [folder] = vscode.workspace.workspaceFolders!;
    const uri = vscode.Uri.joinPath(folder!.uri, 'study.ipynb');
    const cells = Array.from({ length: 9 }, (_, i) => ({
      cell_type: 'code',
      execution_count: null,
      metadata: {},
      outputs: [],
      source: [`def step_${i}():\n`, `    return ${i}\n`],
    }));
    const text = JSON.stringify({ cells, metadata: {}, nbformat: 4, nbformat_minor: 4 }, null, 1);
    await vscode.workspace.fs.writeFile(uri, Buffer.from(text));
    const open = (part: string) => {
      const startLine = 1 + text.split('\n').findIndex((line) => line.includes(part));
      const span = { startLine, endLine: startLine };
      return openPlace({ uri: uri.toString(), path: 'study.ipynb', text: '', offset: 0, span });
    };
    await open('def step_6()');
    const notebook = vscode.window.activeNotebookEditor;
    assert.equal(notebook?.notebook.uri.path, uri.path);
    assert.deepEqual([notebook.selection.start, notebook.selection.end], [6, 7]);
    await open('nbformat_minor');
    const { document, selection } = vscode.window.activeTextEditor!;
    assert.equal(document.uri.path, uri.path);
    assert.match(document.lineAt(selection.start.line).text, /nbformat_minor/);
    await vscode.commands.executeCommand('workbench.action.closeAllEditors');
    await vscode.workspace.fs.delete(uri);
  });

  it('exports the chat as a document', async () => {
    await vscode.commands.executeCommand('longview.ask', 'Where is `backoff` defined?');
    await vscode.commands.executeCommand('longview.exportChat');
    assert.equal(vscode.window.activeTextEditor?.document.languageId, 'markdown');
    assert.match(vscode.window.activeTextEditor.document.getText(), /^## Where is `backoff` defined\?\n\n\S/);
    await vscode.commands.executeCommand('workbench.action.revertAndCloseActiveEditor');
  });

  it('explains symbols in hovers when that is switched on', async () => {
    const settings = vscode.workspace.getConfiguration('longview');
    await settings.update('hover.enabled', true, vscode.ConfigurationTarget.Workspace);
    await vscode.commands.executeCommand('longview.readNow');
    const [folder] = vscode.workspace.workspaceFolders!;
    const file = vscode.Uri.joinPath(folder!.uri, 'net', 'retry.py');
    await vscode.window.showTextDocument(file);
    const hovers = async () => {
      const found = await vscode.commands.executeCommand<vscode.Hover[]>(
        'vscode.executeHoverProvider',
        file,
        new vscode.Position(7, 6),
      );
      return found
        .flatMap(({ contents }) => contents.map((c) => (typeof c === 'string' ? c : c.value)))
        .join('\n');
    };
    assert.match(await hovers(), /Explain with Longview.*command:longview\.explain/);
    await vscode.commands.executeCommand('longview.explain', 'retry_delay');
    assert.match(await hovers(), /retry_delay|[Ss]econds/);
    assert.doesNotMatch(await hovers(), /Explain with Longview/);
    await settings.update('hover.enabled', undefined, vscode.ConfigurationTarget.Workspace);
    assert.equal(await hovers(), '');
  });
}

/** Called by VS Code with --extensionTestsPath. */
export function run(): Promise<void> {
  const mocha = new Mocha({ ui: 'bdd', timeout: 120_000, reporter: 'spec' });
  mocha.suite.emit(
    'pre-require',
    globalThis as unknown as Mocha.MochaGlobals,
    path.basename(__filename),
    mocha,
  );
  describe('the extension in its host', tests);
  return new Promise((resolve, reject) => {
    mocha.run((failures) => (failures > 0 ? reject(new Error(`${failures} tests failed`)) : resolve()));
  });
}
