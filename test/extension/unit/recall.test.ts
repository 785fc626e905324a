/** Earlier questions by the arrow keys. */
import { expect, it } from 'vitest';
import { Recall } from '../../../extension/chat/recall';

const recall = () => new Recall(() => ['first', 'second']);

it('goes back to the first question, and forth to an empty box', () => {
  const box = recall();
  expect(box.after('ArrowUp', '')).toBe('second');
  expect(box.after('ArrowUp', 'second')).toBe('first');
  expect(box.after('ArrowUp', 'first')).toBeUndefined();
  expect(box.after('ArrowDown', 'first')).toBe('second');
  expect(box.after('ArrowDown', 'second')).toBe('');
  expect(box.after('ArrowDown', '')).toBeUndefined();
});

it('leaves what was typed or changed, and begins anew when that is gone', () => {
  const box = recall();
  expect(box.after('ArrowUp', 'typed')).toBeUndefined();
  expect(box.after('ArrowUp', '')).toBe('second');
  expect(box.after('ArrowUp', 'second, changed')).toBeUndefined();
  expect(box.after('ArrowUp', '')).toBe('second');
  expect(box.after('a', 'second')).toBeUndefined();
});

it('has nothing to show in a new chat', () => {
  expect(new Recall(() => []).after('ArrowUp', '')).toBeUndefined();
});
