/** Teacher forcing: how a model foresees the answers of a sequence when all before them was pre-filled in some mode. */
import type { Engine, ExtendResult } from '../../server/engine/engine';
import type { Mode } from './modes';
import type { Sequence } from './sequences';

/** Rows before the first answer that are dense in every mode, as questions are: they do the retrieving. */
export const denseRowsBefore = 32;

/** Of the answer tokens of one sequence, in order. */
export interface Forced {
  nll: Float64Array;
  top1: Int32Array;
  /** The tokens that stand there. */
  truth: Int32Array;
  /** Query-key pairs that attention visited, of all that are causal; and in the rows before the dense ones. */
  density: number;
  prefillDensity: number;
  /** The latter by layer; empty where all was dense. */
  layers: Layer[];
  seconds: number;
}

/** What attention did in one layer of the sparse rows. */
export interface Layer {
  density: number;
  /** Mean attention mass that lies where dense attention puts it; 1 where nothing was left out. */
  recall: number;
}

/**
 * `engine` forgets what it has read before, and must hold no other context: the sequence would take over what begins alike, in whatever
 * mode that was read.
 * Pre-fills `sequence` up to its first answer in the mode, the rest densely; what follows the last answer is not run. Throws where a
 * token's nll is not finite: no mean could be made of it.
 */
export async function force(engine: Engine, mode: Mode, sequence: Sequence): Promise<Forced> {
  const { tokens, answers } = sequence;
  const firstAnswer = answers[0]!.from;
  const end = answers.at(-1)!.to;
  // One token at least is pre-filled: scores need something before them.
  const dense = Math.max(1, firstAnswer - denseRowsBefore);
  await engine.forget();
  const { kvPagesUsed } = await engine.counters();
  if (kvPagesUsed > 0)
    throw new Error('The engine holds another context: a sequence could take over what that read.');
  const context = await engine.createContext();
  const start = performance.now();
  try {
    const sparse = mode.mode !== 'dense';
    const prefilled = await context.extend(tokens.subarray(0, dense), { sparse });
    const scores = await context.score(tokens.subarray(dense, end));
    const seconds = (performance.now() - start) / 1000;
    // A model of one layer has none that attends to what is pre-filled: there is nothing to leave out.
    const prefillDensity = sparse ? (prefilled.density ?? 1) : 1;
    const positions = answers.flatMap(({ from, to }) =>
      Array.from({ length: to - from }, (_, i) => from + i),
    );
    const bad = positions.find((at) => !Number.isFinite(scores.nll[at - dense]));
    if (bad !== undefined)
      throw new Error(
        `-ln p of the token at position ${bad} is ${scores.nll[bad - dense]}, because the model's logits are not finite there.`,
      );
    return {
      nll: Float64Array.from(positions, (at) => scores.nll[at - dense]!),
      top1: Int32Array.from(positions, (at) => scores.top1[at - dense]!),
      truth: Int32Array.from(positions, (at) => tokens[at]!),
      density: 1 - (1 - prefillDensity) * (pairs(dense) / pairs(end)),
      prefillDensity,
      layers: sparse ? layersOf(prefilled) : [],
      seconds,
    };
  } finally {
    await context.dispose();
  }
}

/** Causal pairs of a query and a key among so many tokens. */
function pairs(tokens: number): number {
  return (tokens * (tokens + 1)) / 2;
}

function layersOf({ layers = [], coveredMass }: ExtendResult): Layer[] {
  if (coveredMass === undefined) return [];
  return layers.map(({ density, coveredMass: recall = 1 }) => ({ density, recall }));
}
