/** What the status says while the server works, and how often. */
import type { PrefillProgress } from './engine/engine';
import type { AskResult, AskStats, Phase, PrefillStatus } from './protocol';

export function phaseMessage(phase: Phase, detail?: { done: number; total: number }): string {
  switch (phase) {
    case 'scanning':
      return 'Looking at the files';
    case 'tokenizing':
      return detail && detail.done > 0
        ? `Counting tokens: ${detail.done} of ${detail.total} files`
        : 'Counting tokens';
    case 'reading':
      return 'Reading the repository';
    case 'answering':
      return 'Answering';
    default:
      return phase;
  }
}

export function loadingMessage(name: string, done: number, total: number): string {
  const gigabytes = (bytes: number) => (bytes / 1e9).toFixed(1);
  return `Loading ${name}: ${gigabytes(done)} of ${gigabytes(total)} GB`;
}

export function prefillStatus({ done, total, tokensPerSecond }: PrefillProgress): PrefillStatus {
  const etaSeconds = tokensPerSecond > 0 ? (total - done) / tokensPerSecond : undefined;
  return { done, total, tokensPerSecond, etaSeconds };
}

/** `what` is read, where it is not the repository. */
export function readingMessage(progress: PrefillProgress, what = ''): string {
  const { done, total, tokensPerSecond, etaSeconds } = prefillStatus(progress);
  const reading = `Reading ${what}${done.toLocaleString('en')} of ${total.toLocaleString('en')} tokens`;
  if (etaSeconds === undefined) return reading;
  return `${reading}, ${Math.round(tokensPerSecond)} tokens/s, ${timeLeft(etaSeconds)} left`;
}

/** What an answer took: "Read 5,220 tokens in 3.1 s (1,684 tokens/s). Answered with 38 tokens/s, first word after 3.4 s". */
export function answerMessage(stats: AskStats): string {
  const { promptTokens, reusedTokens, loaded, prefillSeconds, density } = stats;
  const { decodeTokensPerSecond, firstTokenSeconds } = stats;
  const count = (tokens: number) => Math.round(tokens).toLocaleString('en');
  const read = promptTokens - reusedTokens;
  const held = reusedTokens - (loaded?.tokens ?? 0);
  const fromDisk = loaded
    ? `Loaded ${count(loaded.tokens)} tokens from disk in ${loaded.seconds.toFixed(1)} s. `
    : '';
  // How sparse the longest reading was: this one, or one before it.
  const sparse =
    density !== undefined && density < 1 ? `${Math.round(100 * density)} % of dense attention` : undefined;
  const now = sparse && read >= held ? `, ${sparse}` : '';
  const before = sparse && !now ? ` with ${sparse}` : '';
  const kept = held > 0 ? `, ${count(held)} were read before${before}` : '';
  const rate = count(read / Math.max(prefillSeconds, 1e-3));
  return (
    `${fromDisk}Read ${count(read)} tokens in ${prefillSeconds.toFixed(1)} s (${rate} tokens/s${now})${kept}. ` +
    `Answered with ${count(decodeTokensPerSecond)} tokens/s, first word after ${firstTokenSeconds.toFixed(1)} s.`
  );
}

/** What cut an answer in the terminal off; undefined where it came to its end. */
export function cutMessage(
  finish: AskResult['finish'],
  { answerTokens }: Pick<AskStats, 'answerTokens'>,
): string | undefined {
  if (finish === 'length')
    return `The answer was cut at its longest length, ${answerTokens.toLocaleString('en')} tokens (--max-tokens).`;
  // Each question is a chat of its own.
  return finish === 'window'
    ? "The answer was cut: the model's window is full. Ask something shorter, or leave out files (--exclude)."
    : undefined;
}

/** Seconds below two minutes, minutes below two hours, then hours. */
function timeLeft(seconds: number): string {
  if (seconds < 120) return `${Math.ceil(seconds)} s`;
  return seconds < 7200 ? `${Math.round(seconds / 60)} min` : `${Math.round(seconds / 3600)} h`;
}

type Counted = { total: number; done?: number; tokens?: number };

/** At most one call in `ms`, and one for each state; the last, of all that there is to do, always comes through. */
export function paced<T extends Counted>(ms: number, call: (value: T) => void): (value: T) => void {
  let time = -Infinity;
  let former = '';
  return (value) => {
    const done = value.done ?? value.tokens ?? 0;
    const state = `${done} of ${value.total}`;
    const now = performance.now();
    if (state === former || (now - time < ms && done < value.total)) return;
    time = now;
    former = state;
    call(value);
  };
}

/** For whoever looks at a screen. */
export function throttled<T extends Counted>(call: (value: T) => void): (value: T) => void {
  return paced(100, call);
}
