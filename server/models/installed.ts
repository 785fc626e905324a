/** Models on this machine: the built-in one and those in the models folder. */
import { promises as fs } from 'node:fs';
import path from 'node:path';
import { LongviewError } from '../errors';
import { unlessInUse } from '../platform/patiently';
import type { InstalledModel } from '../protocol';
import { builtInModel } from './locate';

/** `current`: path of the model in use; it is listed wherever it lies. */
export async function installedModels(
  modelsFolder: string,
  extensionFolder: string,
  current?: string,
): Promise<InstalledModel[]> {
  const builtIn = builtInModel(extensionFolder);
  const downloaded = await modelsIn(modelsFolder);
  const found = new Set<string>([builtIn, ...downloaded]);
  if (current) found.add(current);
  const models: InstalledModel[] = [];
  for (const file of found) {
    const bytes = await sizeOf(file);
    if (bytes === undefined) continue;
    const name = path.basename(file).replace(/\.(gguf|safetensors)$/, '');
    models.push({
      name,
      path: file,
      bytes,
      builtIn: file === builtIn,
      current: file === current,
      deletable: file !== current && downloaded.includes(file),
    });
  }
  return models;
}

/**
 * Deletes a model of the models folder. Throws LongviewError `invalid_argument` for any other path, `cannot_write` where Windows
 * keeps one that another process has open.
 */
export async function deleteModel(file: string, modelsFolder: string): Promise<void> {
  if (file === modelsFolder || !(await modelsIn(modelsFolder)).includes(file))
    throw new LongviewError(
      'invalid_argument',
      `${file} is not among the models in ${modelsFolder}: delete it where it lies.`,
    );
  if (!(await unlessInUse(() => fs.rm(file, { recursive: true }))))
    throw new LongviewError(
      'cannot_write',
      `${file} is open in another window or program: close that, or choose another model there, then delete this one.`,
    );
}

async function modelsIn(folder: string): Promise<string[]> {
  const entries = await fs.readdir(folder, { withFileTypes: true, recursive: true }).catch(() => []);
  return entries
    .filter((entry) => entry.isFile() && /^(.*\.gguf|config\.json)$/.test(entry.name))
    .map((entry) =>
      entry.name === 'config.json' ? entry.parentPath : path.join(entry.parentPath, entry.name),
    )
    .sort();
}

async function sizeOf(file: string): Promise<number | undefined> {
  try {
    const stat = await fs.stat(file);
    if (stat.isFile()) return stat.size;
    const sizes = await Promise.all(
      (await fs.readdir(file)).map(async (name) => (await fs.stat(path.join(file, name))).size),
    );
    return sizes.reduce((sum, size) => sum + size, 0);
  } catch {
    return undefined;
  }
}
