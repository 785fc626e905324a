/** Settings of an editor for tests and evaluations: on the CPU, everything else as it comes. */
import type { Settings } from '../../server/protocol';

export const plainSettings: Settings = {
  modelPath: '',
  device: 'cpu',
  gpuWeights: 'auto',
  threads: 0,
  windowStretch: 1,
  prefillMode: 'auto',
  prefillTarget: 'balanced',
  include: [],
  exclude: [],
  maxFileKiB: 1024,
  encodings: [],
  hover: false,
  maxAnswerTokens: 256,
  cacheMaxGiB: 40,
  cacheFormat: 'bf16',
};
