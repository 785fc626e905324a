// Choosing a model: the list, and a download that is stopped and goes on.
import assert from 'node:assert/strict';
import { downloads } from './slowHub.mjs';
import { windowOn } from './suite.mjs';

describe('models', function () {
  this.timeout(240_000);
  const workbench = windowOn(process.env.E2E_FOLDER);

  const row = (hasText) => workbench.page.locator('.quick-input-list .monaco-list-row', { hasText });
  const choose = async () => {
    await workbench.command('Longview: Choose a Model');
    await workbench.page.getByPlaceholder('The model that reads this repository').waitFor();
    await row('Qwen2.5 Coder 1.5B').first().waitFor({ timeout: 60_000 });
  };

  it('lists the one in use, and others with size, licence and needs', async () => {
    await choose();
    await row(/built in: finds and quotes/)
      .locator('.codicon-check')
      .waitFor();
    assert.match(await row('Qwen2.5 Coder 1.5B').innerText(), /1\.1 GB · Apache-2\.0 · window 32,768/);
    await workbench.shot('models');
    const details = row(/window [\d,]+/).locator('.quick-input-list-label-meta .label-name');
    const cut = await details.evaluateAll((all) => {
      const isCut = (e) =>
        e.scrollWidth > e.clientWidth + 1 && !e.matches('.quick-input-list-label-meta, .label-name');
      const around = (e) => [e.closest('.monaco-icon-label-container'), e.closest('.monaco-icon-label')];
      return all.filter((e) => around(e).some(isCut)).map((e) => e.textContent);
    });
    assert.ok((await details.count()) >= 4);
    assert.deepEqual(cut, [], 'what a model is good for and needs stands there whole');
    await workbench.page.keyboard.press('Escape');
  });

  it('stops a download with its notification, goes on where it was, and deletes what is there', async () => {
    for (const again of [false, true]) {
      await choose();
      await row('Qwen2.5 Coder 1.5B').click();
      const notification = workbench.notification(/Downloading Qwen2\.5 Coder 1\.5B/);
      await notification.getByText(/\d MB of 5 MB/).waitFor();
      if (again) assert.ok(downloads.at(-1) > 0, 'what came before is not asked for again');
      else await workbench.shot('download');
      await notification.getByRole('button', { name: 'Cancel' }).click();
      await notification.waitFor({ state: 'detached' });
      assert.equal(
        await workbench.notification(/./).count(),
        0,
        'nothing complains of what the user stopped',
      );
    }
    await choose();
    await row(/\d MB are here: the download goes on from there/).hover();
    await workbench.shot('part');
    await row('are here').locator('[aria-label="Delete this part of the model from the disk"]').click();
    await workbench.page.locator('.monaco-dialog-box').getByRole('button', { name: 'Delete' }).click();
    await choose();
    assert.equal(await row('are here').count(), 0);
    await workbench.page.keyboard.press('Escape');
  });
});
