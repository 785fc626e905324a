import { expect, it } from 'vitest';
import { cutText } from '../../../extension/chat/cutText';

it('says what helps where the window is full: a new chat, or less of the repository', () => {
  expect(cutText({ finish: 'window', full: 'turns' })).toMatch(/ Begin a new chat\.$/);
  expect(cutText({ finish: 'window', full: 'repository' })).toMatch(/ or leave out files\.$/);
  // A chat that was kept before it was told.
  expect(cutText({ finish: 'window' })).toMatch(/ Begin a new chat\.$/);
  expect(cutText({ finish: 'length' })).toMatch(/longest length/);
  expect([cutText({ finish: 'stop' }), cutText({})]).toEqual([undefined, undefined]);
});
