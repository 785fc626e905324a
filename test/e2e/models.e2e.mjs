// Choosing a model: the list, a download that is stopped and goes on, and a window that grows.
import assert from 'node:assert/strict';
import { cpSync, mkdirSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { root } from './codeServer.mjs';
import { downloads } from './slowHub.mjs';
import { writeStretchableModel } from './stretchableModel.mjs';
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

describe('a repository beyond the window of a model', function () {
  this.timeout(240_000);
  const beside = path.dirname(process.env.E2E_FOLDER);
  const folder = path.join(beside, 'sources');
  const model = path.join(beside, 'stretchable.gguf');
  cpSync(path.join(root, 'server'), folder, { recursive: true });
  writeStretchableModel(model, 32768);
  mkdirSync(path.join(folder, '.vscode'));
  writeFileSync(path.join(folder, '.vscode/settings.json'), JSON.stringify({ 'longview.model.path': model }));
  const workbench = windowOn(folder);

  it('has room when the window is stretched, which can be undone', async () => {
    const { panel } = workbench;
    await workbench.command('Longview: Focus on Longview View');
    const bar = panel.locator('#budget button');
    const barOf = (hasText) => panel.locator('#budget button', { hasText });
    await barOf('of 32,768 tokens').click();
    const map = panel.locator('#map');
    await map.getByText(/four times as large, 131,072 tokens/).waitFor();
    await workbench.shot('stretch');
    const files = /^(\d+) of (\d+) files/;
    const [, few, all] = files.exec(await bar.innerText());
    assert.ok(Number(few) < Number(all));
    await map.getByRole('button', { name: 'Enlarge the window' }).press('Enter');
    await barOf('of 131,072 tokens').waitFor();
    assert.deepEqual(files.exec(await bar.innerText()).slice(1), [all, all]);
    assert.equal(await map.getByRole('button', { name: 'Enlarge the window' }).count(), 0);
    await workbench.shot('stretched');
    const notification = workbench.notification(/The window is 131,072 tokens in this workspace/);
    await notification.getByRole('button', { name: 'Undo' }).click();
    await barOf('of 32,768 tokens').waitFor();
  });
});
