/** Settings as the server gets them, whatever stands in the files. */
import { readFileSync } from 'node:fs';
import { homedir } from 'node:os';
import path from 'node:path';
import { beforeEach, expect, it, vi } from 'vitest';
import { excludeFromPrompt, makeRoom, readSettings } from '../../../extension/config';
import { ignoreRules } from '../../../server/workspace/ignoreRules';

type Values = Record<string, unknown>;

const editor = vi.hoisted((): { defaults: Values; workspace: Values } => ({ defaults: {}, workspace: {} }));

vi.mock('vscode', () => ({
  ConfigurationTarget: { Workspace: 2 },
  workspace: {
    getConfiguration: (section?: string) => {
      const name = (key: string) => (section ? `${section}.${key}` : key);
      const { defaults, workspace } = editor;
      return {
        get: (key: string) => (name(key) in workspace ? workspace[name(key)] : defaults[name(key)]),
        inspect: (key: string) => ({
          defaultValue: defaults[name(key)],
          workspaceValue: workspace[name(key)],
        }),
        update: (key: string, value: unknown) => {
          workspace[name(key)] = value;
          return Promise.resolve();
        },
      };
    },
  },
}));

const { contributes } = JSON.parse(readFileSync('package.json', 'utf8')) as {
  contributes: { configuration: { properties: Record<string, { default: unknown }> } };
};
const properties = Object.entries(contributes.configuration.properties);
editor.defaults = Object.fromEntries(properties.map(([name, { default: value }]) => [name, value]));

beforeEach(() => {
  editor.workspace = {};
});

it.each(properties.map(([name]) => name))(
  'takes the default of %s where its value has another type',
  (name) => {
    const usual = readSettings();
    const array = Array.isArray(editor.defaults[name]);
    for (const value of [null, {}, array ? 'dist/' : ['a'], array ? [1] : Symbol.iterator]) {
      editor.workspace = { [name]: value };
      expect(readSettings()).toEqual(usual);
    }
  },
);

it('takes values of the right type', () => {
  editor.workspace = { 'longview.model.path': ' /m.gguf ', 'longview.files.exclude': ['a/'] };
  expect(readSettings()).toMatchObject({ modelPath: '/m.gguf', exclude: ['a/'] });
});

it('finds a model in the home folder, as people write it', () => {
  for (const [written, meant] of [
    ['~/models/m.gguf', path.join(homedir(), 'models/m.gguf')],
    ['~', homedir()],
    ['~\\models\\m.gguf', `${homedir()}\\models\\m.gguf`],
    ['/m/~/m.gguf', '/m/~/m.gguf'],
    ['~m.gguf', '~m.gguf'],
  ]) {
    editor.workspace = { 'longview.model.path': written };
    expect(readSettings().modelPath).toBe(meant);
  }
});

it('takes the nearest number that a setting may be', () => {
  editor.workspace = {
    'longview.threads': -1,
    'longview.answer.maxTokens': 0,
    'longview.files.maxSize': 1e12,
  };
  expect(readSettings()).toMatchObject({ threads: 0, maxAnswerTokens: 16, maxFileKiB: 102_400 });
  editor.workspace = { 'longview.threads': 2.4, 'longview.cache.maxSize': 0.5 };
  expect(readSettings()).toMatchObject({ threads: 2, cacheMaxGiB: 0.5 });
});

it('leaves a folder out where the patterns are no list, and takes that back once', async () => {
  const key = 'longview.files.exclude';
  editor.workspace = { [key]: 'dist/' };
  const undo = await excludeFromPrompt('net');
  expect(editor.workspace[key]).toEqual(['/net/']);
  editor.workspace = { [key]: 'dist/' };
  await undo();
  expect(editor.workspace[key]).toBe('dist/');
});

it('takes a folder back without what else the workspace leaves out', async () => {
  const key = 'longview.files.exclude';
  editor.workspace = { [key]: ['dist/'] };
  const undo = await excludeFromPrompt('net');
  editor.workspace[key] = [...(editor.workspace[key] as string[]), 'docs/'];
  await undo();
  expect(editor.workspace[key]).toEqual(['dist/', 'docs/']);
});

it('leaves out a folder whose name looks like a pattern, and that alone', async () => {
  const undo = await excludeFromPrompt('app/[slug]/*#!');
  const [pattern] = editor.workspace['longview.files.exclude'] as string[];
  expect(pattern).toBe('/app/\\[slug\\]/\\*\\#\\!/');
  expect(['app/[slug]/*#!/', 'app/s/x/'].map((name) => ignoreRules([pattern!]).ignores(name))).toEqual([
    true,
    false,
  ]);
  await undo();
  expect(editor.workspace['longview.files.exclude']).toBeUndefined();
});

it('keeps what was read in 4 bits in this workspace, and takes that back', async () => {
  editor.workspace = {};
  const undo = await makeRoom({ by: '4-bits', window: 200_000 });
  expect(readSettings()).toMatchObject({ cacheFormat: 'q4', windowStretch: 1 });
  await undo();
  expect(readSettings()).toMatchObject({ cacheFormat: 'auto' });
});

it('enlarges the window in this workspace, and takes that back unless it was set again', async () => {
  const key = 'longview.window.stretch';
  editor.workspace = { [key]: 2 };
  const undo = await makeRoom({ by: 'stretch', factor: 4, window: 131_072 });
  expect(readSettings()).toMatchObject({ windowStretch: 4 });
  await undo();
  expect(editor.workspace[key]).toBe(2);
  editor.workspace[key] = 1;
  await undo();
  expect(editor.workspace[key]).toBe(1);
});
