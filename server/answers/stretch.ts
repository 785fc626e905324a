/** A larger window where files have no room in the model's: native/model/stretch.h. */
import type { Engine } from '../engine/engine';
import type { PackedRepository } from '../prompt/pack';
import type { WindowStretch } from '../protocol';

/** Of code, rather too few than too many. */
const bytesPerToken = 3;

/** The smallest that would hold all, or the largest. Undefined where nothing lacks room, or more window would give none: memory ends it. */
export function stretchFor(
  { model, window }: Pick<Engine, 'model' | 'window'>,
  { tokens, packing }: Pick<PackedRepository, 'tokens' | 'packing'>,
): WindowStretch | undefined {
  const without = packing.leftOut.filter(({ reason }) => reason === 'over-budget');
  if (!model.stretches || without.length === 0 || window < model.window) return undefined;
  const lacking = without.reduce((sum, { bytes = 0 }) => sum + bytes / bytesPerToken, 0);
  const larger = ([2, 4] as const)
    .filter((factor) => factor > model.stretch)
    .map((factor) => ({ factor, window: (model.window / model.stretch) * factor }));
  return larger.find((stretch) => stretch.window >= tokens.length + lacking) ?? larger.at(-1);
}
