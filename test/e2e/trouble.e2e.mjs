// What goes wrong while the panel is open, in a real VS Code: a disk that takes nothing, a server that dies.
import assert from 'node:assert/strict';
import {
  appendFileSync,
  existsSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import path from 'node:path';
import { windowOn } from './suite.mjs';
import { until } from './workbench.mjs';

const { E2E_FOLDER, E2E_EXTENSIONS, E2E_SETTINGS } = process.env;

/** Process ids of Longview's servers that run from this test's installation. */
function servers() {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .filter((pid) => {
      try {
        const line = readFileSync(`/proc/${pid}/cmdline`, 'utf8');
        return line.includes(E2E_EXTENSIONS) && line.includes(path.join('dist', 'server.js'));
      } catch {
        return false;
      }
    })
    .map(Number);
}

/** Every text that an element shows from now on, hidden ones left out. */
function textsOf(locator) {
  return locator.evaluateHandle((element) => {
    const { MutationObserver } = element.ownerDocument.defaultView;
    const seen = [];
    const keep = () => element.hidden || seen.push(element.textContent);
    new MutationObserver(keep).observe(element, { childList: true, characterData: true, attributes: true });
    return seen;
  });
}

describe('the panel, when something goes wrong', function () {
  this.timeout(240_000);
  const workbench = windowOn(E2E_FOLDER);
  const shot = (name) => workbench.shot(name);

  it('says under the bar that what was read could not be saved, until it can', async () => {
    const { panel } = workbench;
    const unsaved = panel.locator('#budget .unsaved');
    await workbench.ask('Where is `backoff` defined?');
    await workbench.answered(1);
    const storage = path.join(path.dirname(E2E_SETTINGS), 'globalStorage');
    const folders = () => readdirSync(storage).filter((name) => name.endsWith('.longview'));
    const savedIn = (name) => path.join(storage, name, 'cache');
    await until(() => folders().map(savedIn).some(existsSync));
    const saved = savedIn(folders()[0]);
    await workbench.command('Longview: New Chat');
    const edit = async (line) => {
      appendFileSync(path.join(E2E_FOLDER, 'net/retry.py'), `${line}\n`);
      await workbench.ask('Where is `backoff` defined?');
    };
    renameSync(saved, `${saved}-moved`);
    writeFileSync(saved, '');
    await edit('SLOWEST = 61');
    await unsaved.getByText('What was read could not be saved.').waitFor();
    await shot('unsaved');
    rmSync(saved);
    renameSync(`${saved}-moved`, saved);
    await workbench.answered(1);
    await edit('FASTEST = 1');
    await unsaved.waitFor({ state: 'hidden' });
    await workbench.answered(2);
  });

  it('survives the death of its server in the middle of a question', async () => {
    await workbench.command('Longview: New Chat');
    await workbench.ask('Where is `backoff` defined?');
    await workbench.panel.locator('article.turn').first().waitFor();
    const pids = servers();
    assert.ok(pids.length > 0, 'a server runs');
    for (const pid of pids) process.kill(pid, 'SIGKILL');
    const turn = await workbench.answered(1);
    // It may have answered before it was killed.
    const retry = turn.getByRole('button', { name: 'Ask again' });
    if (await retry.count()) {
      assert.match(await turn.locator('.error').innerText(), /stopped unexpectedly.*Try again/);
      assert.ok(await workbench.panel.locator('#wrong').isHidden(), 'what the turn says is not said twice');
      await shot('server-died');
      await retry.click();
    } else {
      await workbench.ask('Where is `backoff` defined?');
      await workbench.answered(2);
    }
    await workbench.panel
      .locator('article.turn .answer', { hasText: 'backoff' })
      .last()
      .waitFor({ timeout: 60_000 });
  });

  it('says that its server is gone wherever it says how that is, until it is back', async () => {
    const { page, panel } = workbench;
    await panel.locator('article.turn[aria-busy="true"]').waitFor({ state: 'detached' });
    const gone = /The engine stopped unexpectedly and restarts in \d s\./;
    const map = panel.locator('#map');
    await panel.locator('#budget button').click();
    await map.waitFor();
    // Without the bar, whose button closes it, it would stand there with what is not true any more.
    const alone = await map.evaluateHandle((map) => {
      const { document, MutationObserver } = map.ownerDocument.defaultView;
      const seen = [];
      const keep = () => seen.push({ map: !map.hidden, bar: !document.getElementById('budget').hidden });
      new MutationObserver(keep).observe(map.parentElement, { subtree: true, attributeFilter: ['hidden'] });
      return seen;
    });
    // It may be back sooner than three places are looked at: what stood there is kept as it comes.
    const announced = await textsOf(panel.locator('#status'));
    const shown = await textsOf(panel.locator('#wrong'));
    const items = await page.evaluateHandle(() => {
      const { MutationObserver } = document.defaultView;
      const seen = [];
      new MutationObserver(() => {
        const item = document.querySelector('.statusbar-item[id*="longview.status"]');
        if (item)
          seen.push({ label: item.querySelector('a').getAttribute('aria-label'), kind: item.className });
      }).observe(document.querySelector('.part.statusbar'), {
        subtree: true,
        childList: true,
        attributes: true,
      });
      return seen;
    });
    for (const pid of servers()) process.kill(pid, 'SIGKILL');
    await until(async () => (await announced.jsonValue()).some((text) => gone.test(text)));
    await panel.locator('#ask[data-health="ok"]').waitFor({ timeout: 60_000 });
    assert.ok((await shown.jsonValue()).some((text) => gone.test(text)));
    assert.ok(
      (await items.jsonValue()).some(({ label, kind }) => gone.test(label) && kind.includes('error-kind')),
    );
    await map.waitFor();
    const states = await alone.jsonValue();
    assert.ok(
      states.some(({ map, bar }) => !map && !bar),
      'the map goes with the bar, and comes back with it',
    );
    assert.ok(states.every(({ map, bar }) => bar || !map));
    assert.equal(await panel.locator('#status').innerText(), '', 'the same words again are announced again');
  });
});
