// Drives VS Code's workbench as a user does: keys, palette, panel.
import { chromium as playwright } from 'playwright-core';
import { chromium } from './codeServer.mjs';

export async function openBrowser() {
  return playwright.launch({
    executablePath: chromium(),
    args: [
      '--no-sandbox',
      '--disable-gpu',
      '--no-first-run',
      '--disable-background-networking',
      '--disable-sync',
    ],
  });
}

export class Workbench {
  constructor(page) {
    this.page = page;
    /** The panel's own page, inside VS Code's two frames. */
    this.panel = page.frameLocator('iframe.webview.ready').frameLocator('iframe#active-frame');
  }

  static async open(browser, url, folder, viewport = { width: 1400, height: 900 }) {
    const context = await browser.newContext({
      viewport,
      permissions: ['clipboard-read', 'clipboard-write'],
    });
    // Nothing leaves this machine.
    await context.route(
      (u) => !['127.0.0.1', 'localhost'].includes(u.hostname),
      (route) => route.abort(),
    );
    const page = await context.newPage();
    await page.goto(`${url}/?folder=${encodeURIComponent(folder)}`);
    await page.waitForSelector('.explorer-folders-view .monaco-list-row', { timeout: 90_000 });
    return new Workbench(page);
  }

  /** A new window on the same folder, as after restarting the editor; the panel stays open. */
  async reload() {
    await this.page.reload();
    await this.page.waitForSelector('.explorer-folders-view .monaco-list-row', { timeout: 90_000 });
    await this.panel.locator('#question').waitFor({ timeout: 60_000 });
  }

  /** The palette; retried until the extension's commands are there. */
  async command(title) {
    const { page } = this;
    for (let attempt = 0; attempt < 8; attempt++) {
      await page.keyboard.press('F1');
      const input = page.locator('.quick-input-widget:visible input').first();
      await input.waitFor({ timeout: 10_000 });
      await input.fill(`>${title}`);
      const row = page.locator('.quick-input-list .monaco-list-row', { hasText: title }).first();
      if (
        await row.waitFor({ timeout: 5000 }).then(
          () => true,
          () => false,
        )
      ) {
        await page.keyboard.press('Enter');
        return;
      }
      await page.keyboard.press('Escape');
      await page.waitForTimeout(500);
    }
    throw new Error(`The palette has no command "${title}".`);
  }

  /** "Ask About This Repo" from the palette, typed into its input box. */
  async ask(question) {
    await this.command('Longview: Ask About This Repo');
    const input = this.page.locator('.quick-input-widget:visible input').first();
    await this.page.locator('.quick-input-widget:visible', { hasText: 'Ask about this repo' }).waitFor();
    await input.fill(question);
    await this.page.keyboard.press('Enter');
  }

  /** The last turn, when it has ended. */
  async answered(count, timeout = 120_000) {
    const turn = this.panel.locator('article.turn').nth(count - 1);
    await turn.waitFor({ timeout: 30_000 });
    await this.panel
      .locator('article.turn[aria-busy="false"]')
      .nth(count - 1)
      .waitFor({ timeout });
    return turn;
  }

  /** Ends the extension host with the page; closing the browser alone would leave it running for hours. */
  async close() {
    await this.page.goto('about:blank');
    await this.page.waitForTimeout(500);
    await this.page.context().close();
  }
}
