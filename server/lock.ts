/** One at a time, in the order of asking. Waiting can be aborted. */
import { throwIfAborted } from './errors';

export class Lock {
  private last: Promise<unknown> = Promise.resolve();

  run<T>(work: () => Promise<T>, signal?: AbortSignal): Promise<T> {
    const result = this.last.then(() => {
      throwIfAborted(signal);
      return work();
    });
    this.last = result.catch(() => undefined);
    return result;
  }
}
