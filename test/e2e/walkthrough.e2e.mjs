// The walkthrough as a new user meets it: every step, its picture and its link.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { root } from './codeServer.mjs';
import { windowOn } from './suite.mjs';

const text = (file) => readFileSync(path.join(root, file), 'utf8');
const [walkthrough] = JSON.parse(text('package.json')).contributes.walkthroughs;

describe('the walkthrough', function () {
  this.timeout(240_000);
  const workbench = windowOn(process.env.E2E_FOLDER);

  const step = (id) => workbench.page.locator(`.getting-started-step[data-step-id$="#${id}"]`);
  /** From the palette; what a step leads to may have taken its tab. */
  const open = async () => {
    await workbench.command('Welcome: Open Walkthrough...');
    const row = workbench.page.locator('.quick-input-list .monaco-list-row', { hasText: walkthrough.title });
    await row.click();
    await workbench.page.locator('h2.category-title', { hasText: walkthrough.title }).waitFor();
  };
  /** Shows a step, and follows its link. */
  const follow = async (id) => {
    const { page } = workbench;
    const { title, description, media } = walkthrough.steps.find((candidate) => candidate.id === id);
    if ((await step(id).getAttribute('aria-expanded')) !== 'true') await step(id).click();
    await step(id).locator('.step-title', { hasText: title }).waitFor();
    // The text beside the step is a page of its own; its first words are enough to know it.
    const [, words] = /^\**([^.*]+)/.exec(text(media.markdown));
    const beside = page.frameLocator('iframe.webview.ready').frameLocator('iframe#active-frame');
    await beside.getByText(words).first().waitFor();
    await workbench.shot(`walkthrough-${id}`);
    const [, label] = /\[([^\]]+)\]\(command:/.exec(description);
    await step(id).getByRole('button', { name: label }).click();
  };

  before(open);

  it('has its steps, none of them done', async () => {
    const titles = await workbench.page.locator('.getting-started-step .step-title').allInnerTexts();
    assert.deepEqual(
      titles,
      walkthrough.steps.map(({ title }) => title),
    );
    assert.equal(await workbench.page.locator('[data-done-step-id][aria-checked="true"]').count(), 0);
  });

  const outcomes = {
    ask: (page) => page.locator('.quick-input-widget:visible', { hasText: 'Ask about this repo' }),
    prompt: (page) => page.locator('.tab.active', { hasText: 'What is in the prompt' }),
    model: (page) => page.getByPlaceholder('The model that reads this repository'),
  };
  for (const { id, title } of walkthrough.steps)
    it(`leads from "${title}" to what it names, and checks it off`, async () => {
      const { page } = workbench;
      assert.ok(outcomes[id], `there is a check of step ${id}`);
      await follow(id);
      await outcomes[id](page).waitFor({ timeout: 60_000 });
      await page.keyboard.press('Escape');
      await open();
      await page.locator(`[data-done-step-id$="#${id}"][aria-checked="true"]`).waitFor();
    });
});
