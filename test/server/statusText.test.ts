import { describe, expect, it } from 'vitest';
import { prefillStatus, readingMessage } from '../../server/statusText';

describe('readingMessage', () => {
  it.each([
    [10, '1 s'],
    [1_190, '119 s'],
    [1_200, '2 min'],
    [71_000, '118 min'],
    [72_000, '2 h'],
    [300_000, '8 h'],
  ])('of %i tokens that are left at 10 tokens/s says that it takes %s', (left, time) => {
    expect(readingMessage({ done: 500, total: 500 + left, tokensPerSecond: 10 })).toBe(
      `Reading 500 of ${(500 + left).toLocaleString('en')} tokens, 10 tokens/s, ${time} left`,
    );
  });

  it('says nothing of the time where nothing has been measured', () => {
    expect(readingMessage({ done: 0, total: 2000, tokensPerSecond: 0 })).toBe('Reading 0 of 2,000 tokens');
  });
});

describe('prefillStatus', () => {
  it('estimates by what is left and the rate', () => {
    expect(prefillStatus({ done: 250, total: 1000, tokensPerSecond: 50 }).etaSeconds).toBe(15);
  });
});
