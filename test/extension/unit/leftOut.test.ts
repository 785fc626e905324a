/** What is left out, by reason; a large repository leaves out a lot. */
import { expect, it } from 'vitest';
import { leftOut, stretchText } from '../../../extension/chat/leftOut';
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
  expect(stretchText({ factor: 2, window: 524288 })).toContain('twice as large, 524,288 tokens');
  expect(stretchText({ factor: 4, window: 1048576 })).toContain('four times as large, 1,048,576 tokens');
});
