/** What a bench asks of an engine in a process of its own. The same job goes to Longview and to llama.cpp. */

export interface Step {
  /** Cut the context to this length first; 0 starts anew. */
  keep: number;
  /** Pre-filled behind what is kept. */
  tokens: number[];
  /** Greedy tokens to choose afterwards, at least one. */
  generate: number;
  /** Ids that end the answer early. */
  stop: number[];
}

export interface Job {
  model: string;
  threads: number;
  /** Tokens that the context must hold. */
  window: number;
  /** Longview only: instruction set; absent: the best. */
  isa?: string;
  /** llama.cpp only: tokens of a batch. */
  batch?: number;
  /** Not timed: brings weights and code into memory. */
  warmUp: number[];
  steps: Step[];
}

export interface StepResult {
  /** From the step's begin until its first token is chosen. */
  firstTokenSeconds: number;
  /** From the first to the last token. */
  decodeSeconds: number;
  tokens: number[];
}

export interface JobResult {
  /** For people: version, instruction sets in use, settings that matter. */
  engine: string;
  steps: StepResult[];
  /** Of the whole process, Node included. */
  peakBytes: number;
}

/** Runs the steps on whatever can pre-fill and generate; shared, so that both sides are timed by the same code. */
export async function runSteps(
  steps: Step[],
  engine: {
    keep(length: number): Promise<void>;
    /** Yields the chosen tokens one by one, at most `count`, not beyond a stop token. */
    generate(tokens: number[], count: number, stop: number[]): AsyncIterable<number>;
  },
): Promise<StepResult[]> {
  const results: StepResult[] = [];
  for (const { keep, tokens, generate, stop } of steps) {
    await engine.keep(keep);
    const chosen: number[] = [];
    const begin = performance.now();
    let first = begin;
    for await (const token of engine.generate(tokens, generate, stop)) {
      if (chosen.length === 0) first = performance.now();
      chosen.push(token);
    }
    const end = performance.now();
    results.push({
      firstTokenSeconds: (first - begin) / 1000,
      decodeSeconds: (end - first) / 1000,
      tokens: chosen,
    });
  }
  return results;
}

/** The job from the parent's message; the result goes back the same way. */
export function serveJob(run: (job: Job) => Promise<JobResult>): void {
  process.once('message', (job: Job) => {
    run(job).then(
      (result) => process.send!(result, () => process.exit(0)),
      (error: unknown) => {
        console.error(error);
        process.exit(1);
      },
    );
  });
}

export function peakBytes(): number {
  return process.resourceUsage().maxRSS * 1024; // Linux gives KiB
}
