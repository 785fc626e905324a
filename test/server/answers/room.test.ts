/** What is offered where files have no room. */
import { expect, it } from 'vitest';
import { moreRoom } from '../../../server/answers/room';
import type { LeftOutFile, Packing } from '../../../server/prompt/packing';

const engine = (
  model: { window: number; stretch?: number; stretches?: boolean },
  window = model.window,
  windowIn4Bits = 0,
) =>
  ({ model: { stretch: 1, stretches: true, ...model }, window, windowIn4Bits }) as Parameters<
    typeof moreRoom
  >[0];

/** A packing of so many tokens, with so many bytes beyond the window. */
const repository = (tokens: number, ...beyond: number[]) => ({
  tokens: new Int32Array(tokens),
  packing: {
    leftOut: [
      { path: 'a.png', reason: 'binary' },
      ...beyond.map((bytes): LeftOutFile => ({ path: 'b', reason: 'over-budget', bytes })),
    ],
  } as Partial<Packing> as Packing,
});

it('is the smallest that would hold all, or the largest', () => {
  const model = engine({ window: 32768 });
  expect(moreRoom(model, repository(30_000, 3000, 60_000))).toEqual({
    by: 'stretch',
    factor: 2,
    window: 65536,
  });
  expect(moreRoom(model, repository(30_000, 150_000))).toEqual({ by: 'stretch', factor: 4, window: 131072 });
  expect(moreRoom(model, repository(30_000, 9_000_000))).toEqual({
    by: 'stretch',
    factor: 4,
    window: 131072,
  });
});

it('is a larger one than there is', () => {
  const twice = engine({ window: 65536, stretch: 2 });
  expect(moreRoom(twice, repository(60_000, 300))).toEqual({ by: 'stretch', factor: 4, window: 131072 });
  expect(moreRoom(engine({ window: 131072, stretch: 4 }), repository(130_000, 300))).toBeUndefined();
});

it('is none where all has room, where memory ends the window, or for other models', () => {
  expect(moreRoom(engine({ window: 32768 }), repository(30_000))).toBeUndefined();
  expect(moreRoom(engine({ window: 32768 }, 8192), repository(8000, 3000))).toBeUndefined();
  expect(moreRoom(engine({ window: 32768, stretches: false }), repository(30_000, 3000))).toBeUndefined();
});

it('is 4 bits where memory ends the window and they have more room', () => {
  const short = engine({ window: 32768 }, 8192, 14_000);
  expect(moreRoom(short, repository(8000, 3000))).toEqual({ by: '4-bits', window: 14_000 });
  expect(moreRoom(short, repository(8000))).toBeUndefined();
  expect(
    moreRoom(engine({ window: 32768, stretches: false }, 8192, 14_000), repository(8000, 3000)),
  ).toBeDefined();
});
