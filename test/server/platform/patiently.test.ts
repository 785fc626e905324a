/** What Windows does with files that someone has open: it cannot be had on another system, so it is told here. */
import { promises as fs } from 'node:fs';
import path from 'node:path';
import { afterEach, expect, it, vi } from 'vitest';
import { clearCache, evict, savedWorkspaces, writeLabel } from '../../../server/cache/storage';
import { deleteModel } from '../../../server/models/installed';
import { chooseModel, chosenModel } from '../../../server/models/locate';
import { patiently } from '../../../server/platform/patiently';
import { repository } from '../workspace/repository';
import { onPlatform } from './onPlatform';

const refused = (code: string) => Object.assign(new Error(code), { code });

afterEach(() => void vi.restoreAllMocks());

/** Has the system refuse to rename or delete what has a name, so many times. */
function refuse(name: string, times = Infinity): void {
  for (const verb of ['rename', 'rm'] as const) {
    const real = fs[verb] as (file: string, ...rest: unknown[]) => Promise<void>;
    vi.spyOn(fs, verb).mockImplementation((file: unknown, ...rest: unknown[]) =>
      path.basename(file as string) === name && times-- > 0
        ? Promise.reject(refused('EBUSY'))
        : real(file as string, ...rest),
    );
  }
}

it('tries again where the system is Windows and a file is open', async () => {
  let tries = 0;
  const work = () => (++tries < 3 ? Promise.reject(refused('EPERM')) : Promise.resolve());
  await onPlatform('win32', () => patiently(work));
  expect(tries).toBe(3);
  tries = 0;
  await expect(patiently(work)).rejects.toMatchObject({ code: 'EPERM' });
  await expect(
    onPlatform('win32', () => patiently(() => Promise.reject(refused('ENOSPC')))),
  ).rejects.toMatchObject({
    code: 'ENOSPC',
  });
});

it('chooses a model while a scanner looks at the choice', async () => {
  const folder = repository([['mine.gguf', 'x']]);
  refuse('chosen.new', 2);
  await onPlatform('win32', () => chooseModel(folder, path.join(folder, 'mine.gguf')));
  expect(chosenModel(folder)).toBe(path.join(folder, 'mine.gguf'));
});

it('keeps a model that is open elsewhere, and says so', async () => {
  const folder = repository([['a/mine.gguf', 'x']]);
  refuse('mine.gguf');
  const file = path.join(folder, 'a/mine.gguf');
  await expect(onPlatform('win32', () => deleteModel(file, folder))).rejects.toMatchObject({
    code: 'cannot_write',
    message: expect.stringContaining(`${file} is open in another window`) as string,
  });
});

it('keeps a saved state that is being written, deletes the others, and says which one stays', async () => {
  const [open, other] = ['0'.repeat(24), '1'.repeat(24)];
  const root = repository([
    [`${open}/pages-0.bin`, 'x'.repeat(5000)],
    [`${other}/pages-0.bin`, 'x'.repeat(5000)],
  ]);
  for (const name of [open, other])
    await writeLabel(path.join(root, name), { folders: [`/r/${name[0]}`], model: 'm' });
  refuse(open);
  await onPlatform('win32', async () => {
    await evict(root, 0, '');
    expect((await savedWorkspaces(root)).map(({ folders }) => folders)).toEqual([['/r/0']]);
    await expect(clearCache(root)).rejects.toMatchObject({
      code: 'cannot_write',
      message: expect.stringMatching(/^What was read of \/r\/0 is in use/) as string,
    });
  });
});
