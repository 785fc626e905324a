/** Who waits for a lock: in turn, and no longer than they want to. */
import { describe, expect, it } from 'vitest';
import { Lock } from '../../server/lock';

describe('a lock', () => {
  it('lets one work at a time, in the order of asking, whether the one before failed or not', async () => {
    const lock = new Lock();
    const order: string[] = [];
    const work = (name: string) => async () => {
      order.push(`${name} begins`);
      await new Promise((done) => setImmediate(done));
      order.push(`${name} ends`);
      if (name === 'a') throw new Error('a failed');
      return name;
    };
    const failing = lock.run(work('a'));
    const following = lock.run(work('b'));
    await expect(failing).rejects.toThrow('a failed');
    expect(await following).toBe('b');
    expect(order).toEqual(['a begins', 'a ends', 'b begins', 'b ends']);
  });

  it('lets go at once of who is stopped while waiting, and never runs their work', async () => {
    const lock = new Lock();
    let finish = () => {};
    const long = lock.run(() => new Promise<void>((done) => (finish = done)));
    const stop = new AbortController();
    let ran = false;
    const waiting = lock.run(() => Promise.resolve((ran = true)), stop.signal);
    const last = lock.run(() => Promise.resolve('last'));
    stop.abort();
    const late = lock.run(() => Promise.resolve((ran = true)), stop.signal);
    // While the long work goes on.
    for (const stopped of [waiting, late]) await expect(stopped).rejects.toMatchObject({ code: 'cancelled' });
    finish();
    await long;
    expect(await last).toBe('last');
    expect(ran).toBe(false);
    await expect(lock.run(() => Promise.resolve(), AbortSignal.abort())).rejects.toMatchObject({
      code: 'cancelled',
    });
  });
});
