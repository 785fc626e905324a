/** Models on this machine, and deleting those that were downloaded. */
import { existsSync, mkdtempSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { expect, it } from 'vitest';
import { deleteModel, installedModels } from '../../../server/models/installed';
import { builtInModel, root, writeFolder } from '../reference';

it('lists files and folders of models, and deletes nothing but them', async () => {
  const folder = path.join(mkdtempSync(path.join(tmpdir(), 'longview-models-')), 'models');
  writeFolder(folder, [
    ['owner/small/small.gguf', 'x'],
    ['owner/sharded/config.json', '{}'],
    ['owner/sharded/model.safetensors', 'xy'],
    ['chosen', 'a choice'],
  ]);
  const file = path.join(folder, 'owner/small/small.gguf');
  const sharded = path.join(folder, 'owner/sharded');
  expect(await installedModels(folder, root, file)).toMatchObject([
    { path: builtInModel, builtIn: true, current: false, deletable: false },
    { path: sharded, bytes: 4, builtIn: false, deletable: true },
    { path: file, name: 'small', bytes: 1, current: true, deletable: false },
  ]);
  const elsewhere = path.join(folder, '../elsewhere.gguf');
  expect((await installedModels(folder, root, elsewhere)).map((model) => model.path)).not.toContain(
    elsewhere,
  );
  writeFolder(path.dirname(elsewhere), [['elsewhere.gguf', 'x']]);
  expect((await installedModels(folder, root, elsewhere)).at(-1)).toMatchObject({
    path: elsewhere,
    current: true,
    deletable: false,
  });
  for (const other of [elsewhere, builtInModel, folder, path.join(folder, 'chosen'), path.join(folder, '..')])
    await expect(deleteModel(other, folder)).rejects.toMatchObject({ code: 'invalid_argument' });
  await deleteModel(sharded, folder);
  expect(existsSync(sharded)).toBe(false);
  expect(existsSync(file) && existsSync(builtInModel)).toBe(true);
});
