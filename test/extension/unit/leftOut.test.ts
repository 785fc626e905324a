/** What is left out, by reason; a large repository leaves out a lot. */
import { expect, it } from 'vitest';
import { leftOut, roomText } from '../../../extension/chat/leftOut';
import type { SkippedFile, SkipReason } from '../../../server/protocol';

it('lists files by their reason, what had no room first', () => {
  const file = (path: string, reason: SkipReason): SkippedFile => ({ path, reason });
  const [a, b, c] = [file('a', 'binary'), file('b', 'over-budget'), file('c', 'binary')];
  expect(leftOut([a, b, c])).toEqual([
    ["Beyond the model's window (1)", [b]],
    ['Binary (2)', [a, c]],
  ]);
});

it('takes each file once', () => {
  const files = Array.from({ length: 1_000_000 }, (_, i): SkippedFile => ({
    path: `${i}`,
    reason: 'ignored',
  }));
  const [group] = leftOut(files);
  expect(group![0]).toBe('By ignore files (1,000,000)');
});

it('says what window would give files room', () => {
  expect(roomText({ by: 'stretch', factor: 2, window: 524288 })).toContain('twice as large, 524,288 tokens');
  expect(roomText({ by: 'stretch', factor: 4, window: 1048576 })).toContain(
    'four times as large, 1,048,576 tokens',
  );
  expect(roomText({ by: '4-bits', window: 262144 })).toContain(
    '4 bits instead of 8, a little less exact: there is room for 262,144 tokens',
  );
});
