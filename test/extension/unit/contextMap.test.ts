/** Folders of the prompt with their weights. */
import { expect, it } from 'vitest';
import { folderTree } from '../../../extension/chat/contextMap';

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
