/** What a mode costs and loses, beside dense on the same tokens. */
import type { Forced, Layer } from './forced';
import type { Data } from './sequences';

/** One line of `--json`. Documented in evaluate.ts's help. */
export interface Summary {
  mode: string;
  n: number;
  sequences: number;
  tokens: number;
  answers: number;
  top1: number;
  exact: number;
  nll: number;
  meanDeltaNll: number;
  meanAbsoluteDeltaNll: number;
  p99DeltaNll: number;
  density: number;
  prefillDensity: number;
  seconds: number;
  worstSequence: { sequence: number; meanDeltaNll: number };
  worstBlock: { sequence: number; position: number; meanDeltaNll: number };
  /** Means over the sequences; absent where no attention was sparse. */
  layers?: Layer[];
  /** Share of exact answers for each kind of question, where the file names kinds. */
  kinds?: Record<string, number>;
}

/** Tokens of the query blocks among which the worst is sought. */
const blockTokens = 128;

export function summarize(mode: string, data: Data, dense: Forced[], forced: Forced[]): Summary {
  const deltas = forced.map(({ nll }, i) => nll.map((x, j) => x - dense[i]!.nll[j]!));
  const all = deltas.flatMap((list) => [...list]);
  const agreed = forced.flatMap(({ top1 }, i) => [...top1].map((id, j) => id === dense[i]!.top1[j]!));
  const answers = exactAnswers(data, forced);
  const sum = (of: (result: Forced) => number) => forced.reduce((total, result) => total + of(result), 0);
  return {
    mode,
    n: data.n,
    sequences: data.sequences.length,
    tokens: all.length,
    answers: answers.length,
    top1: mean(agreed.map(Number)),
    exact: mean(answers.map(({ exact }) => Number(exact))),
    nll: mean(forced.flatMap(({ nll }) => [...nll])),
    meanDeltaNll: mean(all),
    meanAbsoluteDeltaNll: mean(all.map(Math.abs)),
    p99DeltaNll: quantile(all, 0.99),
    density: sum((result) => result.density) / forced.length,
    prefillDensity: sum((result) => result.prefillDensity) / forced.length,
    seconds: sum((result) => result.seconds),
    ...worst(data, deltas),
    ...byLayer(forced),
    ...byKind(answers),
  };
}

function exactAnswers(data: Data, forced: Forced[]): { kind: string; exact: boolean }[] {
  return data.sequences.flatMap(({ answers }, i) => {
    const { top1, truth } = forced[i]!;
    let at = 0;
    return answers.map(({ from, to, kind }) => {
      const first = at;
      at += to - from;
      const exact = top1.subarray(first, at).every((id, j) => id === truth[first + j]);
      return { kind, exact };
    });
  });
}

function byKind(answers: { kind: string; exact: boolean }[]): { kinds?: Record<string, number> } {
  const kinds = [...new Set(answers.map(({ kind }) => kind))].sort();
  if (kinds.includes('')) return {};
  const share = (kind: string) => mean(answers.filter((a) => a.kind === kind).map((a) => Number(a.exact)));
  return { kinds: Object.fromEntries(kinds.map((kind) => [kind, share(kind)])) };
}

/** A sequence that was dense throughout, because it is short, has left out nothing in any layer. */
function byLayer(forced: Forced[]): { layers?: Layer[] } {
  const sparse = forced.find(({ layers }) => layers.length > 0);
  if (!sparse) return {};
  const meanOf = (of: keyof Layer, i: number) => mean(forced.map(({ layers }) => layers[i]?.[of] ?? 1));
  return {
    layers: sparse.layers.map((_, i) => ({ density: meanOf('density', i), recall: meanOf('recall', i) })),
  };
}

/** Failures of sparse attention cluster: the sequence and the query block with the largest mean loss. */
function worst(data: Data, deltas: Float64Array[]): Pick<Summary, 'worstSequence' | 'worstBlock'> {
  const blocks = data.sequences.flatMap(({ answers, index }, row) => {
    const positions = answers.flatMap(({ from, to }) =>
      Array.from({ length: to - from }, (_, i) => from + i),
    );
    const found = new Map<number, number[]>();
    for (const [i, position] of positions.entries()) {
      const block = Math.floor(position / blockTokens) * blockTokens;
      found.set(block, [...(found.get(block) ?? []), deltas[row]![i]!]);
    }
    return [...found].map(([position, list]) => ({ sequence: index, position, meanDeltaNll: mean(list) }));
  });
  const sequences = data.sequences.map(({ index }, row) => ({
    sequence: index,
    meanDeltaNll: mean([...deltas[row]!]),
  }));
  const worstOf = <T extends { meanDeltaNll: number }>(list: T[]) =>
    list.reduce((a, b) => (b.meanDeltaNll > a.meanDeltaNll ? b : a));
  return {
    worstSequence: worstOf(sequences),
    worstBlock: worstOf(blocks),
  };
}

function mean(list: readonly number[]): number {
  return list.reduce((total, x) => total + x, 0) / list.length;
}

/** Between the two nearest of the sorted values, as NumPy's default. */
export function quantile(list: readonly number[], q: number): number {
  const sorted = [...list].sort((a, b) => a - b);
  const at = q * (sorted.length - 1);
  const low = sorted[Math.floor(at)]!;
  return low + (sorted[Math.ceil(at)]! - low) * (at - Math.floor(at));
}

export function table(summaries: Summary[]): string {
  const percent = (x: number, digits = 1) => `${(100 * x).toFixed(digits)} %`;
  const delta = (x: number) => x.toFixed(4);
  const [first] = summaries;
  if (!first) return '';
  const kinds = Object.keys(first.kinds ?? {});
  const rows = [
    ['mode', 'exact', 'top-1', 'NLL', 'ΔNLL mean', 'absolute', 'P99', 'worst sequence', 'worst block', 'density', 'its sparse rows', 'seconds', ...kinds], // prettier-ignore
    ['---', ...Array<string>(11 + kinds.length).fill('---:')],
    ...summaries.map((s) => [
      s.mode,
      percent(s.exact),
      percent(s.top1, 2),
      s.nll.toFixed(4),
      delta(s.meanDeltaNll),
      delta(s.meanAbsoluteDeltaNll),
      delta(s.p99DeltaNll),
      `${delta(s.worstSequence.meanDeltaNll)} (${s.worstSequence.sequence})`,
      `${delta(s.worstBlock.meanDeltaNll)} (${s.worstBlock.sequence} at ${s.worstBlock.position})`,
      percent(s.density),
      percent(s.prefillDensity),
      s.seconds.toFixed(1),
      ...kinds.map((kind) => percent(s.kinds?.[kind] ?? NaN)),
    ]),
  ];
  const head = `${first.sequences} sequences of ${first.n} tokens, ${first.answers} answers of ${first.tokens} tokens in all`;
  return `${head}\n\n${lines(rows)}${layerTable(summaries)}`;
}

function lines(rows: readonly (readonly string[])[]): string {
  return rows.map((row) => `| ${row.join(' | ')} |`).join('\n');
}

/** Recall and density of each layer, in percent; empty where no mode was sparse. */
function layerTable(summaries: Summary[]): string {
  const sparse = summaries.flatMap(({ mode, layers }) => (layers ? [{ mode, layers }] : []));
  const count = Math.max(0, ...sparse.map(({ layers }) => layers.length));
  if (count === 0) return '';
  const cell = ({ recall, density }: Layer) => `${(100 * recall).toFixed(0)} / ${(100 * density).toFixed(0)}`;
  const rows = [
    ['layer', ...Array.from({ length: count }, (_, i) => String(i))],
    ['---', ...Array<string>(count).fill('---:')],
    ...sparse.map(({ mode, layers }) => [mode, ...layers.map(cell)]),
  ];
  return `\n\nMass recalled / density by layer, in percent, of the rows pre-filled in the mode:\n\n${lines(rows)}`;
}
