import { describe, expect, it, vi } from 'vitest';
import type { AskStats } from '../../server/protocol';
import { answerMessage, cutMessage, prefillStatus, readingMessage, throttled } from '../../server/statusText';

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

  it('says what is read where that is not the repository', () => {
    expect(readingMessage({ done: 128, total: 1446, tokensPerSecond: 0 }, 'the question: ')).toBe(
      'Reading the question: 128 of 1,446 tokens',
    );
  });

  it('says nothing of the time where nothing has been measured', () => {
    expect(readingMessage({ done: 0, total: 2000, tokensPerSecond: 0 })).toBe('Reading 0 of 2,000 tokens');
  });
});

describe('answerMessage', () => {
  const stats: AskStats = {
    files: 3,
    skipped: 0,
    promptTokens: 5_220,
    reusedTokens: 0,
    prefillSeconds: 3.1,
    firstTokenSeconds: 3.44,
    decodeTokensPerSecond: 37.6,
    answerTokens: 22,
    device: 'CPU',
    model: 'm',
  };

  it('says what was read, how fast, and how fast it answered', () => {
    expect(answerMessage(stats)).toBe(
      'Read 5,220 tokens in 3.1 s (1,684 tokens/s). Answered with 38 tokens/s, first word after 3.4 s.',
    );
  });

  it('says what was read before, and how much attention was left out', () => {
    const again = { ...stats, reusedTokens: 5_000, prefillSeconds: 0, density: 0.198 };
    expect(answerMessage(again)).toMatch(
      /^Read 220 tokens in 0\.0 s \(220,000 tokens\/s\), 5,000 were read before with 20 % of dense attention\. /,
    );
    expect(answerMessage({ ...again, reusedTokens: 220, prefillSeconds: 2.5 })).toMatch(
      /^Read 5,000 tokens in 2\.5 s \(2,000 tokens\/s, 20 % of dense attention\), 220 were read before\. /,
    );
    expect(answerMessage({ ...stats, density: 1 })).not.toContain('%');
  });

  it('tells loading from reading', () => {
    const next = {
      ...stats,
      reusedTokens: 5_100,
      loaded: { tokens: 5_100, seconds: 0.42 },
      prefillSeconds: 0.1,
    };
    expect(answerMessage(next)).toMatch(
      /^Loaded 5,100 tokens from disk in 0\.4 s\. Read 120 tokens in 0\.1 s \(1,200 tokens\/s\)\. /,
    );
    expect(answerMessage({ ...next, reusedTokens: 5_164 })).toContain('Read 56 tokens in');
    expect(answerMessage({ ...next, reusedTokens: 5_164 })).toContain(', 64 were read before.');
  });
});

describe('prefillStatus', () => {
  it('estimates by what is left and the rate', () => {
    expect(prefillStatus({ done: 250, total: 1000, tokensPerSecond: 50 }).etaSeconds).toBe(15);
  });
});

it('says what helps an answer in the terminal that was cut', () => {
  expect(cutMessage('length', { answerTokens: 1200 })).toMatch(
    /longest length, 1,200 tokens \(--max-tokens\)\.$/,
  );
  // There is no chat there that could be begun anew.
  expect(cutMessage('window', { answerTokens: 3 })).toMatch(
    /Ask something shorter, or leave out files \(--exclude\)\.$/,
  );
  expect(cutMessage('stop', { answerTokens: 3 })).toBeUndefined();
});

it('tells of a step every tenth of a second, of none twice, and always of the last', () => {
  vi.useFakeTimers();
  vi.advanceTimersByTime(1000);
  const told: unknown[] = [];
  const tell = throttled((step: { done?: number; tokens?: number; total: number }) => told.push(step));
  for (const done of [0, 1, 2, 3]) tell({ done, total: 3 });
  for (const tokens of [1, 5, 5]) tell({ tokens, total: 5 });
  vi.advanceTimersByTime(99);
  tell({ total: 3 });
  vi.advanceTimersByTime(1);
  tell({ total: 4 });
  vi.advanceTimersByTime(100);
  tell({ total: 4 });
  vi.useRealTimers();
  expect(told).toEqual([{ done: 0, total: 3 }, { done: 3, total: 3 }, { tokens: 5, total: 5 }, { total: 4 }]);
});
