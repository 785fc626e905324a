/** Which model a question goes to: the one named, LONGVIEW_MODEL, the one chosen, the built-in one. */
import { existsSync, promises as fs, readFileSync } from 'node:fs';
import path from 'node:path';
import { LongviewError } from '../errors';
import { here } from '../here';
import { dataFolder } from '../platform/homeFolders';
import { patiently } from '../platform/patiently';

export const builtInFile = 'longview-135m-64k.Q5_0.gguf';

/** The terminal's; the editor has its own. */
export function defaultModelsFolder(): string {
  return path.join(dataFolder(), 'models');
}

export function builtInModel(extensionFolder: string): string {
  return path.join(extensionFolder, 'media', 'model', builtInFile);
}

const choice = (modelsFolder: string) => path.join(modelsFolder, 'chosen');

/** The path chosen in the picker, if it is still there. */
export function chosenModel(modelsFolder: string): string | undefined {
  try {
    const file = readFileSync(choice(modelsFolder), 'utf8').trim();
    return path.isAbsolute(file) && existsSync(file) ? file : undefined;
  } catch {
    return undefined;
  }
}

export async function chooseModel(modelsFolder: string, file: string): Promise<void> {
  const fresh = `${choice(modelsFolder)}.new`;
  await fs.mkdir(modelsFolder, { recursive: true });
  await fs.writeFile(fresh, `${file}\n`);
  await patiently(() => fs.rename(fresh, choice(modelsFolder)));
}

/** Throws LongviewError `no_model` when the one named (by `named` or LONGVIEW_MODEL) is not there, or none is. */
export function locateModel(named: string, modelsFolder: string, extensionFolder: string): string {
  const given = named || process.env.LONGVIEW_MODEL;
  if (given) {
    const asked = path.resolve(here, given);
    if (existsSync(asked)) return asked;
    throw new LongviewError(
      'no_model',
      `There is no model at ${asked}, which longview.model.path, --model or LONGVIEW_MODEL names. Name a .gguf file or a folder with safetensors, or none for the built-in model.`,
    );
  }
  const file = chosenModel(modelsFolder) ?? builtInModel(extensionFolder);
  if (existsSync(file)) return file;
  throw new LongviewError(
    'no_model',
    `The built-in model is missing from ${path.dirname(file)}. Install Longview again, or choose a model file.`,
  );
}
