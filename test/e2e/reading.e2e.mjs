// A reading that takes its time: what it says of itself, and what its Cancel buttons stop and keep.
import assert from 'node:assert/strict';
import { windowOn } from './suite.mjs';

const saysHowFar = /Reading ([\d,]+) of ([\d,]+) tokens, (\d+) tokens\/s, (\d+) (s|min|h) left/;
const secondsOf = { s: 1, min: 60, h: 3600 };

/** What such a line says; undefined where it says something else. */
function reading(text) {
  const match = saysHowFar.exec(text);
  if (!match) return undefined;
  const [done, total, rate, left] = match.slice(1, 5).map((digits) => Number(digits.replaceAll(',', '')));
  return { done, total, rate, left, unit: secondsOf[match[5]] };
}

describe('a long reading', function () {
  this.timeout(600_000);
  // The same everywhere: a machine with many cores or a GPU would be done before anyone can cancel.
  const workbench = windowOn(process.env.E2E_LARGE_FOLDER, {
    'longview.device': 'cpu',
    'longview.threads': 1,
    'workbench.colorTheme': 'Dark 2026',
  });

  /** In the panel's page: the last turn's readings, each with its time in s, when there are `count` or the turn has ended. */
  const readings = async (count) => {
    await workbench.panel.locator('article.turn[aria-busy="true"]').waitFor({ timeout: 60_000 });
    const seen = await workbench.panel.locator('#turns').evaluate(
      (turns, { count, pattern }) =>
        new Promise((resolve) => {
          const { MutationObserver, performance } = turns.ownerDocument.defaultView;
          const seen = [];
          let observer;
          const look = () => {
            const last = turns.querySelector('article.turn:last-of-type');
            const text = last?.querySelector('.facts').textContent ?? '';
            if (new RegExp(pattern).test(text) && seen.at(-1)?.text !== text)
              seen.push({ text, time: performance.now() / 1000 });
            if (seen.length < count && last?.getAttribute('aria-busy') !== 'false') return;
            observer?.disconnect();
            resolve(seen);
          };
          observer = new MutationObserver(look);
          observer.observe(turns, { childList: true, characterData: true, subtree: true, attributes: true });
          look();
        }),
      { count, pattern: saysHowFar.source },
    );
    return seen.map(({ text, time }) => ({ ...reading(text), time }));
  };

  /** The notification of a reading, when at least `done` tokens are read. */
  const notified = async (done = 0) => {
    const notification = workbench.notification(saysHowFar).first();
    const handle = await workbench.page.waitForFunction(
      ({ pattern, done }) => {
        const toasts = [...document.querySelectorAll('.notifications-toasts .notification-toast')];
        const text = toasts.map(({ textContent }) => textContent).find((t) => new RegExp(pattern).test(t));
        const match = text && new RegExp(pattern).exec(text);
        return match && Number(match[1].replaceAll(',', '')) >= done && text;
      },
      { pattern: saysHowFar.source, done },
      { timeout: 240_000 },
    );
    return { notification, ...reading(await handle.jsonValue()) };
  };

  const cancel = async (notification) => {
    await notification.getByRole('button', { name: 'Cancel' }).click();
    await notification.waitFor({ state: 'detached', timeout: 60_000 });
  };

  const statusItem = (hasText) => workbench.page.locator('.statusbar-item', { hasText });

  it('says in the panel, in a notification and in the status bar how far it is, and how long it still takes', async () => {
    await workbench.ask('Where is `Session` defined?');
    const seen = await readings(5);
    assert.equal(seen.length, 5, 'the panel says it five times before the end');
    const announced = workbench.panel.locator('#status', { hasText: /^Reading \d+ files$/ });
    assert.equal(await announced.count(), 1);
    // A page that is made while it is read says so too.
    await workbench.command('View: Toggle Secondary Side Bar Visibility');
    await announced.waitFor({ state: 'detached' });
    await workbench.command('View: Toggle Secondary Side Bar Visibility');
    await announced.waitFor();
    const { notification, ...told } = await notified();
    await notification.getByRole('button', { name: 'Cancel' }).waitFor();
    await statusItem(/Reading \d+ %/).waitFor();
    await workbench.shot('reading');
    for (const { done, total, rate, left, unit } of [...seen, told]) {
      assert.equal(total, seen[0].total);
      // The rate is shown as a whole number, and the time left in whole seconds, minutes or hours.
      const [least, most] = [(total - done) / (rate + 0.5), (total - done) / (rate - 0.5)];
      assert.ok(
        left * unit >= least - unit && left * unit <= most + unit,
        `${done} ${total} ${rate} ${left}`,
      );
    }
    for (const [i, { done }] of seen.entries()) if (i > 0) assert.ok(done > seen[i - 1].done);
    // The rate is that of this reading: what it says of the time between two lines is the time that went by.
    const [first, last] = [seen[0], seen.at(-1)];
    const said = last.done / last.rate - first.done / first.rate;
    const passed = last.time - first.time;
    assert.ok(said > passed / 3 && said < passed * 3, `${said} s are said, ${passed} s went by`);
  });

  it('takes one question at a time, and says so before another one is typed', async () => {
    await workbench.command('Longview: Ask About This Repo');
    const notification = workbench.notification(/A question is still being answered/);
    await notification.waitFor();
    // The palette closes, and nothing opens in its place.
    await workbench.page.locator('.quick-input-widget:visible').waitFor({ state: 'hidden', timeout: 5000 });
    await notification.hover();
    await notification.getByRole('button', { name: /^Clear Notification/ }).click();
    await notification.waitFor({ state: 'detached' });
    const { panel } = workbench;
    await panel.locator('#question').fill('And where is `fork` defined?');
    await panel.locator('#question').press('Enter');
    await panel.locator('#progress', { hasText: 'One question at a time' }).waitFor();
    assert.equal(await panel.locator('#question').inputValue(), 'And where is `fork` defined?');
    await panel.locator('#question').fill('');
  });

  it('stops with the notification, and goes on from there when asked again', async () => {
    const { notification, done } = await notified();
    await cancel(notification);
    const turn = await workbench.answered(1);
    await turn.getByText('Stopped. What was read is kept.').waitFor();
    await statusItem(/Reading/).waitFor({ state: 'detached' });
    await workbench.shot('reading-stopped');
    await turn.getByRole('button', { name: 'Ask again' }).click();
    const [again] = await readings(1);
    assert.ok(again.done > done, `${again.done} after ${done}`);
    await workbench.panel.locator('#question').press('Escape');
    await workbench.panel.getByText('Stopped. What was read is kept.').waitFor();
  });

  it('reads ahead of a question, stops with its notification, and goes on from there', async () => {
    await workbench.command('Longview: Read the Repository Now');
    const first = await notified();
    await workbench.shot('reading-ahead');
    await cancel(first.notification);
    await statusItem(/Reading/).waitFor({ state: 'detached' });
    assert.equal(await workbench.notification(/./).count(), 0, 'nothing complains of what the user stopped');
    await workbench.command('Longview: Read the Repository Now');
    const second = await notified();
    assert.ok(second.done > first.done, `${second.done} after ${first.done}`);
    await second.notification.waitFor({ state: 'detached', timeout: 400_000 });
    // All of it is read: the question costs its own tokens.
    await workbench.panel.locator('#question').fill('Where is `Session` defined?');
    await workbench.panel.locator('#question').press('Enter');
    const facts = await (await workbench.answered(2)).locator('.facts').innerText();
    const [tokens, reused] = /([\d,]+) tokens · ([\d,]+) reused/
      .exec(facts)
      .slice(1)
      .map((text) => Number(text.replaceAll(',', '')));
    assert.ok(tokens >= second.total && tokens - reused < 60, facts);
  });

  it('stops a calibration with its notification, and says nothing more of it', async () => {
    await workbench.command('Longview: Calibrate Sparse Reading for This Model');
    const notification = workbench.notification(/Calibrating|Loading/).first();
    await notification.waitFor({ timeout: 120_000 });
    await cancel(notification);
    await statusItem(/Reading/).waitFor({ state: 'detached' });
    assert.equal(await workbench.notification(/./).count(), 0, 'nothing complains of what the user stopped');
  });
});
