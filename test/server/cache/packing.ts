/** A packing for tests of what keeps one. */
import type { Packing } from '../../../server/prompt/packing';

/** Of no files: all but its tokens. */
export const noFiles: Omit<Packing, 'base'> = {
  basePaths: [],
  baseSizes: [],
  overlay: [],
  dead: 0,
  budget: 0,
  entries: new Map(),
  leftOut: [],
};
