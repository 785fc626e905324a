/** One at a time, in the order of asking. Who waits can give up at once; who works is not interrupted. */
import { LongviewError, throwIfAborted } from './errors';

export class Lock {
  private last: Promise<unknown> = Promise.resolve();

  /** Throws `cancelled` when `signal` is aborted before `work` began. */
  run<T>(work: () => Promise<T>, signal?: AbortSignal): Promise<T> {
    const turn = whileWanted(this.last, signal);
    const result = this.last.then(() => {
      throwIfAborted(signal);
      return work();
    });
    this.last = result.catch(() => undefined);
    return turn.then(() => result);
  }
}

/** The outcome of work, or `cancelled` as soon as the signal is aborted. The work itself goes on. */
export function whileWanted<T>(work: Promise<T>, signal?: AbortSignal): Promise<T> {
  return new Promise<T>((resolve, reject) => {
    throwIfAborted(signal);
    const giveUp = () => reject(new LongviewError('cancelled', 'Stopped.'));
    signal?.addEventListener('abort', giveUp, { once: true });
    void work.then(resolve, reject).finally(() => signal?.removeEventListener('abort', giveUp));
  });
}
