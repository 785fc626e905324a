/**
 * Keeps what was read up to the files while nobody asks: saved edits are read soon after, and when they have grown past a
 * tenth, or a fiftieth and nobody asks or saves for a while, the repository is packed and read afresh, beside the answers,
 * which use the former state until that is complete.
 */
import { LongviewError } from '../errors';
import type { Freshness } from '../protocol';
import type { Session } from './session';

/** Editors save in bursts. */
const quietMs = 1000;
/** Someone who is at work asks or saves more often. */
const idleMs = 15 * 60_000;

export interface RefresherOptions {
  onFreshness: (freshness: Freshness) => void;
  /** A failure that a question would meet too. */
  onFailure: (message: string) => void;
  quietMs?: number;
  idleMs?: number;
}

export class Refresher {
  private readonly closing = new AbortController();
  private timer: NodeJS.Timeout | undefined;
  private idleTimer: NodeJS.Timeout | undefined;
  private working: Promise<void> | undefined;
  private again = false;
  /** Files were saved before the repository was read. */
  private unseen = false;

  constructor(
    private readonly session: Session,
    private readonly options: RefresherOptions,
  ) {}

  /** Files were saved: looks at them when it has been quiet for a while. */
  poke(): void {
    this.unseen = !this.session.hasRead;
    if (this.closing.signal.aborted || this.unseen) return;
    this.stopTimers();
    this.timer = setTimeout(() => this.begin(false), this.options.quietMs ?? quietMs);
    this.timer.unref();
  }

  /** The repository was read, for a question or ahead of one: looks at what was saved meanwhile, or is worth packing afresh. */
  wasRead(): void {
    // When that is due, or not to be idle while someone asks.
    if (this.unseen || this.session.rebaseWorthwhile) this.poke();
  }

  private stopTimers(): void {
    clearTimeout(this.timer);
    clearTimeout(this.idleTimer);
  }

  private begin(idle: boolean): void {
    if (this.working) {
      this.again = true;
      return;
    }
    this.working = this.refresh(idle).finally(() => {
      this.working = undefined;
      if (this.again) this.poke();
      this.again = false;
    });
  }

  private async refresh(idle: boolean): Promise<void> {
    const { signal } = this.closing;
    const { onFreshness } = this.options;
    let changedFiles = 0;
    try {
      changedFiles = await this.session.changedFiles(signal);
      if (changedFiles > 0) {
        onFreshness({ state: 'changed', changedFiles });
        onFreshness({ state: 'refreshing', changedFiles });
      }
      // Also where no file changed: one prompt of them may follow another.
      await this.session.catchUp(signal);
      changedFiles = 0;
      onFreshness({ state: 'current', changedFiles });
      const { rebaseDue, rebaseWorthwhile } = this.session;
      if (rebaseDue || (rebaseWorthwhile && idle)) await this.session.rebase(signal);
      else if (rebaseWorthwhile && !signal.aborted) {
        this.idleTimer = setTimeout(() => this.begin(true), this.options.idleMs ?? idleMs);
        this.idleTimer.unref();
      }
    } catch (error) {
      if (error instanceof LongviewError && error.code === 'cancelled') return;
      if (changedFiles > 0) onFreshness({ state: 'changed', changedFiles });
      this.options.onFailure((error as Error).message);
    }
  }

  async dispose(): Promise<void> {
    this.closing.abort();
    this.stopTimers();
    await this.working;
  }
}
