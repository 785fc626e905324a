/** What the terminal command takes: its usage, its options, and their values as they are typed. */
import { parseArgs } from 'node:util';
import { cacheFolder } from './platform/homeFolders';

export const usage = `Usage:
  longview ask [options] "question" ["another question" ...]   answers from the repository's files
  longview prefill [options]                                   reads the repository, as the first question would
  longview context [options]                                   what is in the prompt, and what is left out and why
  longview calibrate [options]                                 finds what each of the model's heads may leave out while it
                                                               reads, for this machine: minutes, once for a model
  longview models [list | download ID | use PATH]              models on this machine and in the catalogue
  longview cache [list | clear]                                saved states of repositories, and their sizes

Options:
  --repo FOLDER     the repository (default: here); may be repeated: what is in two of them is read once
  --model FILE      a .gguf file or a folder with safetensors
  --include GLOB    take files that would be left out; may be repeated
  --exclude GLOB    leave files out; may be repeated
  --encoding E      of files that are not UTF-8, as gbk or windows-1251 (default: windows-1252 where they look like that)
  --device D        auto (default: a GPU where there is one), cuda, cpu
  --gpu-weights W   weights on a GPU: auto (default: as the file has them), fp8 (H100, H200)
  --threads N       CPU threads (default: all)
  --stretch N       twice (2) or four times (4) the model's window, by YaRN: for Qwen2.5, Qwen3 and Qwen3.5 (default: 1)
  --prefill-mode M  how the repository is read: auto (default), adaptive, minference, dense
  --prefill-target T  what that may cost in accuracy: fast, balanced (default), exact
  --profile FILE    what each head attends to: a file of \`calibrate\`, or of MInference for its mode
                    (default: what was calibrated here, else the built-in model's)
  --kv-format F     how what was read is kept: auto (default: bf16, or q8 where the window would not fit), bf16, q8,
                    q4 (a quarter of the memory, less exact), fp8 (GPUs from compute capability 8.9 on)
  --max-tokens N    length of an answer (default: 512)
  --target T        calibrate: fast, balanced or minference (default: a profile for each)
  --text FILE       calibrate: on this text instead of the repository
  --tokens N        calibrate: of the text (default: 32768, or the window)
  --density PER     calibrate: keys that heads visit on average, per thousand (default: as many as uncalibrated ones)
  --out FOLDER      calibrate: where the profiles go (default: where they are found)
  --json            for machines
  --help            this

What was read is saved in LONGVIEW_CACHE_DIR (default: ${cacheFolder()}; empty: nowhere).`;

export class UsageError extends Error {}

const options = {
  model: { type: 'string' },
  repo: { type: 'string', multiple: true },
  include: { type: 'string', multiple: true },
  exclude: { type: 'string', multiple: true },
  encoding: { type: 'string' },
  device: { type: 'string' },
  'gpu-weights': { type: 'string' },
  threads: { type: 'string' },
  stretch: { type: 'string' },
  'prefill-mode': { type: 'string' },
  'prefill-target': { type: 'string' },
  profile: { type: 'string' },
  'kv-format': { type: 'string' },
  'max-tokens': { type: 'string' },
  target: { type: 'string' },
  text: { type: 'string' },
  tokens: { type: 'string' },
  density: { type: 'string' },
  out: { type: 'string' },
  json: { type: 'boolean' },
} as const;

type Option = keyof typeof options;
export type Options = ReturnType<typeof parse>['values'];

const ofRepository: Option[] = ['repo', 'include', 'exclude', 'encoding'];
const ofModel: Option[] = ['model', 'device', 'gpu-weights', 'threads', 'stretch', 'kv-format'];
const ofReading: Option[] = ['prefill-mode', 'prefill-target', 'profile', 'max-tokens'];
/** What each command looks at: another option would change nothing, and whoever gives it would not know. */
const taken: Record<string, Option[]> = {
  ask: [...ofRepository, ...ofModel, ...ofReading],
  prefill: [...ofRepository, ...ofModel, ...ofReading],
  context: [...ofRepository, ...ofModel, ...ofReading],
  calibrate: [...ofRepository, ...ofModel, 'target', 'text', 'tokens', 'density', 'out'],
  models: [],
  cache: [],
};

export function parse(command: string, args: string[], allowPositionals = false) {
  const parsed = parseArgs({ args, allowPositionals, options });
  for (const name of Object.keys(parsed.values) as Option[]) {
    if (name !== 'json' && !taken[command]!.includes(name))
      throw new UsageError(`${command} takes no --${name}.`);
    // Of a shell's variable that is not set: this folder is not the one that was meant.
    if ([parsed.values[name]].flat().includes('')) throw new UsageError(`--${name} is empty.`);
  }
  return parsed;
}

export function whole(
  text: string | undefined,
  option: string,
  least = 0,
  most = 999_999,
): number | undefined {
  if (text === undefined) return undefined;
  const value = /^\d{1,6}$/.test(text) ? Number(text) : NaN;
  if (!(value >= least && value <= most))
    throw new UsageError(`--${option} needs a whole number from ${least} to ${most}.`);
  return value;
}

/** The first of `values` where the option is not given. */
export function oneOf<const T extends string>(
  text: string | undefined,
  option: string,
  values: readonly [T, ...T[]],
): T {
  if (text === undefined) return values[0];
  const value = values.find((candidate) => candidate === text);
  if (value === undefined) throw new UsageError(`--${option} must be one of ${values.join(', ')}.`);
  return value;
}
