/** The real server as the editor runs it: a process of its own, LSP over IPC, the built-in model. */
import { mkdtempSync, readFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { pathToFileURL } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { AskProgress, Status } from '../../server/protocol';
import { ServerClient } from '../eval/serverClient';
import { writeFolder } from './reference';

const folder = mkdtempSync(path.join(tmpdir(), 'longview-server-'));
writeFolder(folder, [
  [
    'app/config.py',
    'RETRY_LIMIT = 17\n\n\ndef load_config(path):\n    """Read the settings file."""\n    return open(path).read()\n',
  ],
  ['.env', 'SECRET=1\n'],
]);

let server: ServerClient;
const statuses: Status[] = [];

beforeAll(async () => {
  server = await ServerClient.start(folder, { hover: true }, (status) => statuses.push(status));
}, 60_000);
afterAll(() => server.stop());

describe('the server', { timeout: 60_000 }, () => {
  it('says what is in the prompt', async () => {
    const { files, skipped, window, usedTokens, reservedTokens } = await server.context();
    expect(files.map((file) => file.path)).toEqual(['app/config.py']);
    expect(skipped).toMatchObject([{ path: '.env', reason: 'secret' }]);
    expect(usedTokens + reservedTokens).toBeLessThan(window);
  });

  it('streams an answer, its phases and its citations', async () => {
    const progress: AskProgress[] = [];
    const answer = await server.ask('Where is `load_config` defined?', {
      onProgress: (p) => progress.push(p),
    });
    const text = progress.map((p) => (p.kind === 'text' ? p.text : '')).join('');
    expect(text).toBe(answer.answer);
    expect(answer.citations).toMatchObject([{ path: 'app/config.py', span: { startLine: 4 } }]);
    const phases = progress.map((p) => (p.kind === 'phase' ? p.phase : p.kind));
    for (const phase of ['scanning', 'tokenizing', 'context', 'reading', 'answering', 'text'])
      expect(phases).toContain(phase);
    expect(statuses.at(-1)).toMatchObject({ health: 'ok', phase: 'ready', model: { builtIn: true } });
  });

  it('says which files the last answer was read from', async () => {
    const { conversationId } = await server.ask('What is the value of `RETRY_LIMIT`?');
    const { sources } = await server.sources(conversationId);
    expect(sources).toEqual([
      {
        path: 'app/config.py',
        uri: pathToFileURL(path.join(folder, 'app/config.py')).href,
        share: 1,
        span: { startLine: 1, endLine: 1 },
        firstLine: 'RETRY_LIMIT = 17',
      },
    ]);
    expect(await server.sources('nowhere')).toEqual({});
  });

  it('goes on with a conversation for the new tokens alone', async () => {
    const first = await server.ask('Where is `load_config` defined?');
    const second = await server.ask('What is the value of `RETRY_LIMIT`?', {
      conversationId: first.conversationId,
    });
    expect(second.answer).toContain('17');
    expect(second.stats.reusedTokens).toBe(first.stats.promptTokens + first.stats.answerTokens);
  });

  it('offers to explain the symbol under the cursor, and shows what it explained', async () => {
    const file = path.join(folder, 'app/config.py');
    expect(await server.hover(file, 3, 6)).toMatch(
      /^\[Explain with Longview\]\(command:longview\.explain\?\S+load_config\S+\)$/,
    );
    const { text } = await server.explain('load_config');
    expect(text).toMatch(/load_config|settings/i);
    expect(await server.hover(file, 3, 6)).toBe(text);
    expect(await server.hover(file, 2, 0)).toBeUndefined();
    expect(await server.explain('nowhere_to_be_found')).toEqual({});
    await expect(server.explain('a b')).rejects.toMatchObject({ data: { code: 'invalid_argument' } });
  });

  it('stops when it is told to, and answers the next question', async () => {
    const stopped = server.ask('Where is `load_config` defined?', { stopAfterText: true });
    await expect(stopped).rejects.toMatchObject({ data: { code: 'cancelled' } });
    expect((await server.ask('Where is `load_config` defined?')).citations.length).toBe(1);
  });

  it('lists models, and keeps the one in use when another does not load', async () => {
    const { installed, catalog } = await server.models();
    expect(installed).toMatchObject([{ builtIn: true, current: true }]);
    expect(catalog.length).toBeGreaterThan(2);
    const elsewhere = mkdtempSync(path.join(tmpdir(), 'longview-broken-'));
    const broken = path.join(elsewhere, 'broken.gguf');
    writeFolder(elsewhere, [['broken.gguf', 'no model']]);
    await expect(server.useModel(broken)).rejects.toMatchObject({ data: { code: 'unknown_format' } });
    await expect(server.useModel('/nowhere.gguf')).rejects.toThrow(/no model at/);
    await expect(server.deleteModel(broken)).rejects.toThrow(/delete it where it lies/);
    await expect(server.deleteModel(installed[0]!.path)).rejects.toThrow(/in use/);
    expect((await server.ask('Where is `load_config` defined?')).stats.files).toBe(1);
  });

  it('has a sentence for a question without words, and for one that is too long', async () => {
    await expect(server.ask('  ')).rejects.toThrow(/empty/);
    await expect(server.ask('why '.repeat(70_000))).rejects.toMatchObject({
      data: { code: 'question_too_long' },
    });
  });

  it('answers from an edited file, for the tokens of the edit', async () => {
    const before = await server.ask('What is the value of `RETRY_LIMIT`?');
    writeFolder(folder, [
      [
        'app/config.py',
        'RETRY_LIMIT = 23\n\n\ndef load_config(path):\n    """Read the settings file."""\n    return open(path).read()\n',
      ],
    ]);
    const after = await server.ask('What is the value of `RETRY_LIMIT`?');
    expect(after.answer).toContain('23');
    const { tokens } = (await server.context()).files[0]!;
    const own = after.stats.promptTokens - after.stats.reusedTokens;
    const question = before.stats.promptTokens - before.stats.reusedTokens;
    expect(own).toBeLessThanOrEqual(tokens + question + 64);
  });

  it('counts what was edited before it began, and takes line ends of another kind for no edit', async () => {
    const file = path.join(folder, 'app/config.py');
    const saved = readFileSync(file, 'utf8');
    const before = await server.context();
    await server.open(file, `\ufeff${saved.replaceAll('\n', '\r\n')}`);
    expect(await server.context()).toEqual(before);
    await server.close(file);
    await server.open(file, saved.replace('23', '41'));
    expect((await server.ask('What is the value of `RETRY_LIMIT`?')).answer).toContain('41');
    await server.close(file);
    expect((await server.ask('What is the value of `RETRY_LIMIT`?')).answer).toContain('23');
  });

  it('reads a file in windows-1252, and takes what an editor shows of it for no edit', async () => {
    const file = path.join(folder, 'app/waage.c');
    const text = '/* Größe der Waage, für Käufer und Verkäufer von Öl */\nint scale_size = 29;\n';
    writeFolder(folder, [['app/waage.c', Buffer.from(text, 'latin1')]]);
    const { citations, answer } = await server.ask('What is the value of `scale_size`?');
    expect(answer).toContain('29');
    expect(citations).toMatchObject([{ path: 'app/waage.c', span: { startLine: 2 } }]);
    const before = await server.context();
    for (const shown of [text, text.replace(/[^\0-\x7f]/g, '\ufffd')]) {
      await server.open(file, shown);
      expect(await server.context()).toEqual(before);
      await server.close(file);
    }
    await server.open(file, text.replace('29', '31'));
    expect((await server.ask('What is the value of `scale_size`?')).answer).toContain('31');
    await server.close(file);
  });

  it('says of folders that are on no disk that they cannot be read, and answers beside open files of theirs', async () => {
    const other = await ServerClient.start(folder, {});
    const uris = ['vscode-vfs://github/microsoft/vscode', 'file://nas/projects/vscode'];
    for (const uri of uris) await other.addFolder(uri, new URL(uri).hostname);
    await other.open(new URL(`${uris[1]}/a.ts`), 'const a = 1;');
    const { files, skipped } = await other.context();
    await other.stop();
    expect(files[0]?.path).toBe(`${path.basename(folder)}/app/config.py`);
    for (const uri of uris)
      expect(skipped).toContainEqual({
        path: `${new URL(uri).hostname}/`,
        reason: 'unreadable',
        detail: `${uri} is on no disk of this machine: it cannot be read.`,
      });
  });
});
