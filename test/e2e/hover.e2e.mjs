// Explanations in hovers: what comes of the link in one, with the mouse and without.
import assert from 'node:assert/strict';
import { windowOn } from './suite.mjs';

describe('a hover', function () {
  this.timeout(240_000);
  const workbench = windowOn(process.env.E2E_FOLDER, { 'longview.hover.enabled': true });

  before(async () => {
    await workbench.ask('Where is `Session` defined?');
    await (await workbench.answered(1)).locator('.citation').first().click();
    await workbench.page.locator('.tab.active', { hasText: 'session.py' }).waitFor();
    // The citation's lines are selected a moment after the file is there: a cursor that was set before would be moved.
    await workbench.page.locator('.statusbar-item', { hasText: /Ln 4, Col \d+ \(\d+ selected\)/ }).waitFor();
  });

  const link = () => workbench.page.locator('.monaco-hover:visible a', { hasText: 'Explain with Longview' });
  /** One that shows an explanation. */
  const explained = (hasText) => workbench.page.locator('.monaco-hover:visible', { hasText }).first();
  /** Where a name begins in the editor, on the line that holds `text`. */
  const placeOf = async (name, text) => {
    const line = workbench.page.locator('.view-line', { hasText: text }).first();
    const { left, top } = await line.evaluate((line, name) => {
      const texts = [...line.querySelectorAll('span > span')].map(({ firstChild }) => firstChild);
      for (const text of texts) {
        const at = text.data.indexOf(name);
        if (at < 0) continue;
        const range = document.createRange();
        range.setStart(text, at);
        range.setEnd(text, at + name.length);
        return range.getBoundingClientRect().toJSON();
      }
      throw new Error(`There is no ${name}.`);
    }, name);
    return [left + 12, top + 8];
  };
  const away = () => workbench.page.mouse.move(700, 880);
  /** With the mouse, its link. */
  const press = async (name, text) => {
    await away();
    await workbench.page.mouse.move(...(await placeOf(name, text)), { steps: 5 });
    await link().first().click({ timeout: 15_000 });
  };

  it('explains the symbol at the cursor in a new hover there', async () => {
    const { page } = workbench;
    await page.mouse.click(...(await placeOf('retry_delay', 'retry_delay(attempt)')));
    await press('retry_delay', 'retry_delay(attempt)');
    await away();
    await explained(/retry_delay|[Ss]econds/).waitFor({ timeout: 60_000 });
    await workbench.shot('hover-explained');
    await page.keyboard.press('Escape');
  });

  it('explains a symbol away from the cursor in a message, and moves nothing', async () => {
    const place = () => workbench.page.locator('.statusbar-item', { hasText: /Ln \d+, Col \d+/ }).innerText();
    const before = await place();
    await press('connect', 'def connect');
    const message = workbench.notification(/connect|[Oo]pen/).filter({ hasNotText: 'Explaining' });
    await message.waitFor({ timeout: 60_000 });
    await link().first().waitFor({ state: 'detached' });
    await workbench.shot('hover-message');
    assert.equal(await place(), before);
    await workbench.page.keyboard.press('Escape');
  });

  it('is used by keyboard alone', async () => {
    const { page } = workbench;
    await page.mouse.click(...(await placeOf('backoff', 'while backoff')));
    await away();
    const show = async () => {
      await page.keyboard.press('Control+k');
      await page.keyboard.press('Control+i');
    };
    await show();
    await link().first().waitFor();
    await show();
    await page.keyboard.press('Tab');
    await page.keyboard.press('Enter');
    await explained(/backoff|attempt/).waitFor({ timeout: 60_000 });
  });
});
