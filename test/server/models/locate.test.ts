import { mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, describe, expect, it } from 'vitest';
import { installedModels } from '../../../server/models/installed';
import { chooseModel, chosenModel, locateModel } from '../../../server/models/locate';
import { builtInModel, root } from '../reference';

const folder = mkdtempSync(path.join(tmpdir(), 'longview-locate-'));
const mine = path.join(folder, 'mine.gguf');
const other = path.join(folder, 'other.gguf');
writeFileSync(mine, 'x');
writeFileSync(other, 'xy');

afterEach(() => delete process.env.LONGVIEW_MODEL);

describe('locateModel', () => {
  it('takes the one named, then the environment, then the choice, then the built-in one', async () => {
    expect(locateModel('', folder, root)).toBe(builtInModel);
    await chooseModel(folder, mine);
    expect(locateModel('', folder, root)).toBe(mine);
    process.env.LONGVIEW_MODEL = other;
    expect(locateModel('', folder, root)).toBe(other);
    expect(locateModel(mine, folder, root)).toBe(mine);
  });

  it('forgets a choice that is gone, and says so of one that was named', async () => {
    await chooseModel(folder, path.join(folder, 'gone.gguf'));
    expect(chosenModel(folder)).toBeUndefined();
    expect(locateModel('', folder, root)).toBe(builtInModel);
    expect(() => locateModel('/nowhere/x.gguf', folder, root)).toThrow(/no model at \/nowhere\/x\.gguf/);
    expect(() => locateModel('', folder, '/nowhere')).toThrow(/built-in model is missing/);
  });

  it('lists what is there', async () => {
    const models = await installedModels(folder, root, mine);
    expect(models.map(({ name, builtIn, current }) => [name, builtIn, current])).toEqual([
      ['longview-135m-64k.Q5_0', true, false],
      ['mine', false, true],
      ['other', false, false],
    ]);
  });
});
