// Drives VS Code's workbench as a user does: keys, palette, panel.
import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { chromium as playwright } from 'playwright-core';
import { chromium } from './codeServer.mjs';

/** As a user's settings, for the next window. */
export function changeSettings(settings) {
  const file = process.env.E2E_SETTINGS;
  writeFileSync(file, JSON.stringify({ ...JSON.parse(readFileSync(file, 'utf8')), ...settings }));
}

export async function until(holds, timeout = 60_000) {
  for (const end = Date.now() + timeout; !(await holds()); await new Promise((done) => setTimeout(done, 100)))
    assert.ok(Date.now() < end, 'in time');
}

let shots = 0;

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

/** A window of VS Code, in a browser of its own. */
export class Workbench {
  /** On `folder`; without one, an empty window. */
  async open(url, folder, viewport = { width: 1400, height: 900 }) {
    this.browser = await openBrowser();
    const context = await this.browser.newContext({
      viewport,
      permissions: ['clipboard-read', 'clipboard-write'],
    });
    // Nothing leaves this machine.
    await context.route(
      (u) => !['127.0.0.1', 'localhost'].includes(u.hostname),
      (route) => route.abort(),
    );
    const page = await context.newPage();
    this.page = page;
    /** The panel's own page, inside VS Code's two frames. */
    this.panel = page.frameLocator('iframe.webview.ready').frameLocator('iframe#active-frame');
    await page.goto(folder ? `${url}/?folder=${encodeURIComponent(folder)}` : `${url}/?ew=true`);
    await page.waitForSelector(
      folder ? '.explorer-folders-view .monaco-list-row' : '.part.statusbar .statusbar-item',
      {
        timeout: 90_000,
      },
    );
  }

  /** A new window on the same folder, as after restarting the editor; the panel stays open. */
  async reload() {
    // VS Code in a browser writes what extensions keep a moment after they asked for it.
    await this.page.waitForTimeout(1000);
    await this.page.reload();
    await this.page.waitForSelector('.explorer-folders-view .monaco-list-row', { timeout: 90_000 });
    await this.panel.locator('#question').waitFor({ timeout: 60_000 });
  }

  /** The palette; retried until the extension's commands are there, and where what gets the focus at that moment closes it. */
  async command(title) {
    const { page } = this;
    const input = page.locator('.quick-input-widget:visible input').first();
    const row = page.locator('.quick-input-list .monaco-list-row', { hasText: title }).first();
    const offers = async () => {
      await input.waitFor({ timeout: 10_000 });
      await input.fill(`>${title}`, { timeout: 5000 });
      await row.waitFor({ timeout: 5000 });
    };
    for (let attempt = 0; attempt < 8; attempt++) {
      await page.keyboard.press('F1');
      const offered = await offers().then(
        () => true,
        () => false,
      );
      if (offered) return page.keyboard.press('Enter');
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

  /** A picture of the window, numbered in the order of the tests. */
  async shot(name) {
    const file = `${String(++shots).padStart(2, '0')}-${name}.png`;
    await this.page.screenshot({ path: path.join(process.env.E2E_SHOTS, file) });
  }

  /** A notification whose text is as given. */
  notification(hasText) {
    return this.page.locator('.notifications-toasts .notification-toast', { hasText });
  }

  /** Ends the extension host with the page; closing the browser alone would leave it running for hours. */
  async close() {
    await this.page?.goto('about:blank');
    await this.page?.waitForTimeout(500);
    await this.browser?.close();
  }
}
