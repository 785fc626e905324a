/** What would give files room that have none. */
import type { Engine } from '../engine/engine';
import type { PackedRepository } from '../prompt/pack';
import type { MoreRoom } from '../protocol';

/** Of code, rather too few than too many. */
const bytesPerToken = 3;

/**
 * Where memory ends the window, fewer bits of what was read; else the smallest stretched window (native/model/stretch.h) that would hold
 * all, or the largest. Undefined where nothing lacks room, or nothing would give it.
 */
export function moreRoom(
  { model, window, windowIn4Bits }: Pick<Engine, 'model' | 'window' | 'windowIn4Bits'>,
  { tokens, packing }: Pick<PackedRepository, 'tokens' | 'packing'>,
): MoreRoom | undefined {
  const without = packing.leftOut.filter(({ reason }) => reason === 'over-budget');
  if (without.length === 0) return undefined;
  if (window < model.window)
    return windowIn4Bits > window ? { by: '4-bits', window: windowIn4Bits } : undefined;
  if (!model.stretches) return undefined;
  const lacking = without.reduce((sum, { bytes = 0 }) => sum + bytes / bytesPerToken, 0);
  const larger = ([2, 4] as const)
    .filter((factor) => factor > model.stretch)
    .map((factor) => ({ by: 'stretch' as const, factor, window: (model.window / model.stretch) * factor }));
  return larger.find((stretch) => stretch.window >= tokens.length + lacking) ?? larger.at(-1);
}
