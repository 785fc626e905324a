/** Folders of the prompt with their weights. */
import { expect, it } from 'vitest';
import { folderTree, sharesOfFolders } from '../../../extension/chat/contextMap';

it('counts the tokens and files below each folder, however deep', () => {
  const tree = folderTree([
    { path: 'README.md', tokens: 1 },
    { path: 'src/a.ts', tokens: 10 },
    { path: 'src/deep/er/b.ts', tokens: 100 },
    { path: 'test/a.ts', tokens: 1000 },
  ]);
  expect(tree).toMatchObject({ path: '', tokens: 1111, files: 4 });
  expect([...tree.folders.keys()]).toEqual(['src', 'test']);
  const src = tree.folders.get('src')!;
  expect(src).toMatchObject({ path: 'src', tokens: 110, files: 2 });
  expect(src.folders.get('deep')!.folders.get('er')).toMatchObject({
    path: 'src/deep/er',
    tokens: 100,
    files: 1,
  });
});

it('marks the folders that got a tenth of what an answer looked at, and the files beside them', () => {
  const shares = sharesOfFolders([
    { path: 'src/deep/a.ts', share: 0.5 },
    { path: 'src/b.ts', share: 0.25 },
    { path: 'README.md', share: 0.2 },
    { path: 'test/c.ts', share: 0.05 },
  ]);
  expect([...shares]).toEqual([
    ['src', 0.75],
    ['src/deep', 0.5],
    ['', 0.2],
  ]);
  expect(sharesOfFolders([]).size).toBe(0);
});
