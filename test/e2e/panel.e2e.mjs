// The panel in a real VS Code, with the built-in model: from the palette to an opened line.
import assert from 'node:assert/strict';
import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import AxeBuilder from '@axe-core/playwright';
import { windowOn } from './suite.mjs';
import { changeSettings, until, Workbench } from './workbench.mjs';

const { E2E_URL, E2E_FOLDER } = process.env;

describe('the panel', function () {
  this.timeout(240_000);
  const workbench = windowOn(E2E_FOLDER);
  const shot = (name) => workbench.shot(name);

  it('shows what is in the prompt before the first question, and leaves a folder out with one click', async () => {
    const { panel, page } = workbench;
    await workbench.command('Longview: Focus on Longview View');
    const bar = panel.locator('#budget button');
    await bar.waitFor({ timeout: 60_000 });
    assert.match(await bar.innerText(), /4 of 4 files · [\d,]+ of 65,536 tokens/);
    await bar.click();
    const map = panel.locator('#map');
    assert.match(await map.locator('.sums').innerText(), /used, 1,536 kept free/);
    assert.deepEqual((await map.locator('.folder .name').allInnerTexts()).slice(0, 2), ['net/', 'orders/']);
    await map.getByText('Secrets (1)').click();
    await map.getByText('.env').waitFor();
    await map.getByText('orders/').click();
    await map.getByText('lines/').waitFor();
    await shot('prompt-map');
    const lines = map.locator('.name', { hasText: 'lines/' });
    const { height } = await lines.boundingBox();
    await map.evaluate((element) => (element.ownerDocument.body.style.width = '180px'));
    await shot('prompt-map-narrow');
    assert.equal((await lines.boundingBox()).height, height, 'a name in a narrow panel stands in one line');
    await map.evaluate((element) => (element.ownerDocument.body.style.width = ''));
    await bar.evaluate((button) => (button.dataset.same = 'yes'));
    await map.getByRole('button', { name: 'Leave net/ out of the prompt' }).press('Enter');
    await panel.locator('#budget button', { hasText: '2 of 2 files' }).waitFor({ timeout: 15_000 });
    await map.getByText('By your settings').waitFor();
    await map.getByText('.env').waitFor();
    await map.getByText('lines/').waitFor();
    const next = map.getByRole('button', { name: 'Leave orders/ out of the prompt', exact: true });
    assert.ok(await next.evaluate((button) => button.matches(':focus')), 'the next one has the focus');
    await page.getByRole('button', { name: 'Undo' }).click();
    await panel.locator('#budget button', { hasText: '4 of 4 files' }).waitFor({ timeout: 15_000 });
    assert.equal(await bar.getAttribute('data-same'), 'yes', 'a new status leaves the button its focus');
    await bar.click();
    await map.waitFor({ state: 'hidden' });
    await shot('empty');
  });

  it('says so before the first question too when files come and go', async () => {
    const { panel } = workbench;
    const bar = (files) => panel.locator('#budget button', { hasText: files }).waitFor({ timeout: 30_000 });
    const added = path.join(E2E_FOLDER, 'ports', 'ports.py');
    mkdirSync(path.dirname(added));
    try {
      writeFileSync(added, 'DEFAULT_PORT = 8443\n');
      await bar('5 of 5 files');
      await panel.locator('#budget button').click();
      await panel.locator('#map .name', { hasText: 'ports/' }).waitFor();
      await panel.locator('#budget button').click();
    } finally {
      rmSync(path.dirname(added), { recursive: true });
    }
    await bar('4 of 4 files');
  });

  it('answers a question from the palette, with a link to the line', async () => {
    await workbench.ask('Where is `retry_delay` defined?');
    const turn = await workbench.answered(1);
    await shot('answer');
    const citation = turn.locator('a.citation').first();
    assert.match(await citation.innerText(), /net\/retry\.py#retry_delay:8/);
    assert.match(await turn.locator('.facts').innerText(), /4 of 4 files/);
    await turn.getByRole('button', { name: 'Copy', exact: true }).click();
    await turn.getByRole('button', { name: 'Copied' }).waitFor();
    // The browser's clipboard may have it a moment after the editor says so.
    const copied = () => workbench.page.evaluate('navigator.clipboard.readText()');
    for (let i = 0; i < 50 && (await copied()) === ''; i++) await workbench.page.waitForTimeout(100);
    assert.match(await copied(), /^`retry_delay` is a function in \[net\/retry\.py#retry_delay\]\.$/);
    await citation.click();
    await workbench.page.locator('.tab.active', { hasText: 'retry.py' }).waitFor();
    await workbench.page.locator('.statusbar-item', { hasText: /Ln 8/ }).waitFor({ timeout: 10_000 });
    await shot('citation-opened');
  });

  it('says what an answer was read from, under it and on the map, and opens it by keyboard', async () => {
    const { panel, page } = workbench;
    await workbench.command('View: Close All Editors');
    const sources = panel.locator('article.turn').first().locator('.sources');
    const summary = sources.locator('summary');
    await summary.waitFor({ timeout: 15_000 });
    assert.match(await summary.innerText(), /Looked at most: retry\.py/);
    assert.equal(await sources.locator('li').first().isVisible(), false);
    await summary.focus();
    await page.keyboard.press('Enter');
    const first = sources.getByRole('button', { name: 'net/retry.py:8' });
    await first.waitFor();
    const row = await sources.getByRole('listitem').first().innerText();
    const [, share] = /net\/retry\.py:8\s+(\d+) %/.exec(row) ?? assert.fail(row);
    assert.ok(Number(share) > 50, row);
    await shot('sources');
    await page.keyboard.press('Tab');
    assert.equal(await sources.locator('button:focus').getAttribute('title'), 'Open net/retry.py, line 8');
    await page.keyboard.press('Enter');
    await page.locator('.tab.active', { hasText: 'retry.py' }).waitFor();
    await page.locator('.statusbar-item', { hasText: /Ln 8/ }).waitFor({ timeout: 10_000 });

    const bar = panel.locator('#budget button');
    await bar.click();
    const marks = panel.locator('#map .looked:visible');
    await marks.first().waitFor();
    const marked = await marks.evaluateAll((all) => all.map((mark) => mark.parentElement.textContent));
    assert.equal(marked.length, 1);
    assert.match(marked[0], /^net\/Looked at most by the last answer: \d+ %$/);
    await shot('sources-map');
    await bar.click();
  });

  it('shows the note about the built-in model until it is dismissed', async () => {
    const note = workbench.panel.locator('#note');
    await note.waitFor();
    await note.getByRole('button', { name: 'Got it' }).press('Enter');
    await note.waitFor({ state: 'hidden' });
    await workbench.panel.locator('#question:focus').waitFor();
  });

  it('makes the question box as high as its text, up to a limit', async () => {
    const input = workbench.panel.locator('#question');
    const heights = () => input.evaluate(({ clientHeight, scrollHeight }) => [clientHeight, scrollHeight]);
    const [line] = await heights();
    await input.fill('Where is the delay between two attempts computed, and what uses it? '.repeat(2));
    const [height, needed] = await heights();
    assert.ok(height > 2 * line && height === needed, `${height} of ${needed}`);
    await shot('long-question');
    await input.fill('x\n'.repeat(40));
    const [most, all] = await heights();
    assert.ok(most < all && most > height, `${most} of ${all}`);
    await input.fill('');
    assert.deepEqual(await heights(), [line, line]);
  });

  it('answers a follow-up typed in the panel, for its own tokens', async () => {
    const input = workbench.panel.locator('#question');
    await input.click();
    await workbench.page.keyboard.type('What is the value of `MAX_ATTEMPTS`?');
    await workbench.page.keyboard.press('Enter');
    const turn = await workbench.answered(2);
    assert.match(await turn.locator('.answer').innerText(), /\b7\b/);
    const facts = await turn.locator('.facts').innerText();
    const [, prompt, reused] = /([\d,]+) tokens · ([\d,]+) reused/.exec(facts);
    const number = (text) => Number(text.replaceAll(',', ''));
    assert.ok(number(prompt) - number(reused) < 60, facts);
    assert.match(await workbench.panel.locator('#status').innerText(), /^Answer ready/);
    await workbench.page.keyboard.press('ArrowUp');
    await workbench.page.keyboard.press('ArrowUp');
    assert.equal(await input.inputValue(), 'Where is `retry_delay` defined?', 'the question before the last');
    await workbench.page.keyboard.press('ArrowDown');
    await workbench.page.keyboard.press('ArrowDown');
    assert.equal(await input.inputValue(), '');
  });

  it('comes back with a new window, and has nothing that axe finds, in four themes', async () => {
    for (const [theme, kind] of [
      ['Dark 2026', 'vscode-dark'],
      ['Light 2026', 'vscode-light'],
      ['Default High Contrast', 'vscode-high-contrast'],
      ['Default High Contrast Light', 'vscode-high-contrast-light'],
    ]) {
      changeSettings({ 'workbench.colorTheme': theme });
      await workbench.reload();
      await workbench.panel.locator(`body.${kind}`).waitFor({ timeout: 15_000 });
      await workbench.panel.locator('article.turn').nth(1).waitFor();
      await workbench.panel.locator('.sources summary').last().click();
      await shot(kind);
      await workbench.panel.locator('#budget button').click();
      await workbench.panel.locator('#map .looked:visible').first().waitFor();
      await shot(`${kind}-map`);
      const { violations } = await new AxeBuilder({ page: workbench.page })
        .include(['iframe.webview.ready', '#active-frame', 'main'])
        .include(['iframe.webview.ready', '#active-frame', 'form'])
        .analyze();
      assert.deepEqual(
        violations.map(({ id, nodes }) => [id, nodes.map(({ html }) => html)]),
        [],
        theme,
      );
      await workbench.panel.locator('#budget button').click();
    }
    await workbench.panel.locator('#budget button').waitFor({ timeout: 30_000 });
    assert.ok(await workbench.panel.locator('#note').isHidden(), 'what was dismissed stays away');
  });

  it('fits at 200 % zoom, and keeps still where motion is reduced', async () => {
    const { page, panel } = workbench;
    const animation = () =>
      panel.locator('#turns').evaluate((turns) => {
        const facts = turns.ownerDocument.createElement('p');
        facts.className = 'facts waiting';
        turns.append(facts);
        const { animationName } = turns.ownerDocument.defaultView.getComputedStyle(facts, '::before');
        facts.remove();
        return animationName;
      });
    assert.equal(await animation(), 'breathe');
    await page.emulateMedia({ reducedMotion: 'reduce' });
    assert.equal(await animation(), 'none');
    // Half the pixels of the window, as its zoom does it.
    await page.setViewportSize({ width: 700, height: 450 });
    await workbench.command('Longview: Focus on Longview View');
    // Whole, over what a reloaded window may have kept as its draft.
    await panel.locator('#question').fill('Show the code of `Session` and of every function.');
    await panel.locator('#question').press('Enter');
    await workbench.answered(3);
    await panel.locator('.sources summary').last().click();
    await shot('zoom-200');
    for (const selector of ['#question', '#send', '#budget button'])
      assert.ok(await panel.locator(selector).isVisible(), selector);
    const wide = await panel
      .locator('#turns')
      .evaluate(
        (turns) =>
          [turns, ...turns.querySelectorAll('article, p')].filter((e) => e.scrollWidth > e.clientWidth + 1)
            .length,
      );
    assert.equal(wide, 0, 'nothing but code is scrolled sideways');
    await page.emulateMedia({ reducedMotion: null });
    await page.setViewportSize({ width: 1400, height: 900 });
  });

  it('shows a question from the palette to who reads further up', async () => {
    const { page, panel } = workbench;
    await page.setViewportSize({ width: 700, height: 450 });
    const turns = panel.locator('#turns');
    const last = panel.locator('article.turn').last();
    const inSight = async () => {
      const [list, turn] = await Promise.all([turns.boundingBox(), last.boundingBox()]);
      return turn.y < list.y + list.height && turn.y + turn.height > list.y;
    };
    // As often as it takes: a list that has just become smaller goes to its end by itself.
    await until(async () => {
      await turns.evaluate((list) => list.scrollTo(0, 0));
      return !(await inSight());
    });
    await page.waitForTimeout(100);
    await workbench.ask('Where is `backoff` defined?');
    await workbench.answered(4);
    assert.ok(await inSight(), 'the new question');
    await page.setViewportSize({ width: 1400, height: 900 });
  });

  it('keeps the end of an answer in sight when the question box grows and the map opens', async () => {
    const { page, panel } = workbench;
    await page.setViewportSize({ width: 700, height: 450 });
    const atEnd = () =>
      panel
        .locator('#turns')
        .evaluate((list) => list.scrollHeight - list.scrollTop - list.clientHeight < 2 && list.scrollTop > 0);
    await until(atEnd);
    await panel.locator('#question').fill('a\nb\nc\nd');
    await until(atEnd, 5000);
    await panel.locator('#question').fill('');
    await panel.locator('#budget button').click();
    await panel.locator('#map').waitFor();
    await until(atEnd, 5000);
    await panel.locator('#budget button').click();
    await page.setViewportSize({ width: 1400, height: 900 });
  });

  it('opens the code of an answer in an editor', async () => {
    const turn = workbench.panel.locator('article.turn').nth(2);
    const open = turn.getByRole('button', { name: 'Open' }).first();
    const { height } = await open.boundingBox();
    const width = (px) => turn.evaluate((e, px) => (e.ownerDocument.body.style.width = px), px);
    await width('180px');
    await shot('narrow');
    assert.equal((await open.boundingBox()).height, height, 'its label stands in one line in a narrow panel');
    await width('');
    await open.click();
    await workbench.page.locator('.tab.active', { hasText: /Untitled/ }).waitFor();
    await workbench.page.locator('.statusbar-item', { hasText: 'Python' }).waitFor();
    await workbench.page
      .locator('.monaco-editor .view-line', { hasText: /class.Session|def.\w/ })
      .first()
      .waitFor();
  });

  it('works without a mouse', async () => {
    await workbench.command('Longview: New Chat');
    await workbench.ask('Where is `Session` defined?');
    const turn = await workbench.answered(1);
    // The palette's command leaves the cursor in the panel's input; the citation is a few steps back.
    await workbench.panel.locator('#question:focus').waitFor();
    for (let i = 0; i < 6; i++) {
      await workbench.page.keyboard.press('Shift+Tab');
      if (await turn.locator('a.citation:focus').count()) break;
    }
    assert.equal(await turn.locator('a.citation:focus').count(), 1);
    await workbench.page.keyboard.press('Enter');
    await workbench.page.locator('.tab.active', { hasText: 'session.py' }).waitFor();
  });

  it('stops with Escape, says so, and asks again', async () => {
    const input = workbench.panel.locator('#question');
    // A key from here may come when the short answer is there already: it is pressed in the page, with the turn's first sight.
    await input.evaluate((element) => {
      const { document, MutationObserver, KeyboardEvent } = element.ownerDocument.defaultView;
      new MutationObserver((_changes, observer) => {
        if (!document.querySelector('article.turn[aria-busy="true"]')) return;
        observer.disconnect();
        document.dispatchEvent(new KeyboardEvent('keydown', { key: 'Escape' }));
      }).observe(document.getElementById('turns'), { childList: true, subtree: true });
    });
    await input.fill('Show the code of `Session` and of every function.');
    await input.press('Enter');
    const turn = await workbench.answered(2);
    await turn.getByText('Stopped. What was read is kept.').waitFor();
    await turn.getByRole('button', { name: 'Ask again' }).press('Enter');
    await workbench.panel.locator('#question:focus').waitFor();
    await workbench.answered(2);
    await workbench.panel.getByText('Stopped. What was read is kept.').waitFor({ state: 'detached' });
    await shot('code');
  });

  it('begins a chat with what it is for, in a short panel too', async () => {
    const { page, panel } = workbench;
    await page.setViewportSize({ width: 700, height: 450 });
    await workbench.command('Longview: New Chat');
    await panel.locator('.empty').waitFor();
    await panel.locator('#question').fill('a\nb');
    await shot('short-and-empty');
    const { scrollTop, scrollHeight, clientHeight } = await panel
      .locator('#turns')
      .evaluate(({ scrollTop, scrollHeight, clientHeight }) => ({ scrollTop, scrollHeight, clientHeight }));
    assert.ok(scrollHeight > clientHeight, 'it has more than it can show');
    assert.equal(scrollTop, 0);
    await panel.locator('#question').fill('');
    await page.setViewportSize({ width: 1400, height: 900 });
    await workbench.command('Longview: Chat History');
    await page.getByPlaceholder('Go on with an earlier chat').waitFor();
    await page.keyboard.press('Enter');
    await panel.locator('article.turn').nth(1).waitFor();
  });

  it('keeps earlier chats, goes on with them, and deletes them', async () => {
    const { page, panel } = workbench;
    await workbench.command('Longview: New Chat');
    await panel.locator('.empty').waitFor();
    await workbench.command('Longview: Chat History');
    const list = page.getByPlaceholder('Go on with an earlier chat');
    const rows = page.locator('.quick-input-list .monaco-list-row', { hasText: /\d questions?/ });
    await list.waitFor();
    await rows.first().waitFor();
    await shot('history');
    assert.match(await rows.first().innerText(), /Where is `Session` defined\?/);
    const before = await rows.count();
    await page.keyboard.press('Enter');
    await panel.locator('article.turn').nth(1).waitFor();
    await workbench.command('Longview: Chat History');
    await list.waitFor();
    await rows.first().waitFor();
    assert.equal(await rows.count(), before - 1);
    await page.locator('.quick-input-widget:visible [aria-label="Delete all earlier chats"]').click();
    const sure = page.locator('.monaco-dialog-box', {
      hasText: /Delete .*earlier chats? of this workspace\?/,
    });
    await sure.getByRole('button', { name: 'Delete' }).click();
    await sure.waitFor({ state: 'detached' });
    await workbench.command('Longview: Chat History');
    await page.getByPlaceholder('There is no earlier chat in this workspace').waitFor();
    await page.keyboard.press('Escape');
    await panel.locator('article.turn').nth(1).waitFor();
  });

  it('asks for a folder where none is open', async () => {
    const window = new Workbench();
    try {
      await window.open(E2E_URL);
      await window.command('Longview: Focus on Longview View');
      await window.panel.getByText('No folder is open').waitFor();
      await window.shot('no-folder');
      await window.panel.getByRole('button', { name: 'Open a folder' }).click();
      await window.page.locator('.quick-input-widget:visible', { hasText: 'Open Folder' }).waitFor();
      await window.page.keyboard.press('Escape');
    } finally {
      await window.close();
    }
  });

  it('says what is in the prompt and what is not, in a document', async () => {
    await workbench.command('Longview: Show What Is in the Prompt');
    const editor = workbench.page.locator('.monaco-editor .view-lines').first();
    await editor.getByText('What is in the prompt').first().waitFor();
    await workbench.page.locator('.tab.active', { hasText: 'What is in the prompt' }).waitFor();
    await shot('prompt-contents');
  });

  it('shows tables with whole words and quotes set off, in a narrow panel too', async () => {
    const { panel } = workbench;
    const answer =
      '| Setting | Default |\n|---|--:|\n| `longview.cache.maxSize` | 65,536 |\n\n> One\n>\n> > Two\n';
    // As the host sends it: the built-in model writes no tables.
    const turn = { id: 'own', question: 'Which?', answer, state: 'done', citations: [], missing: [] };
    await panel.locator('#turns').evaluate((turns, turn) => {
      const { window } = turns.ownerDocument.defaultView;
      window.dispatchEvent(new window.MessageEvent('message', { data: { type: 'turn', seq: 1e9, turn } }));
      turns.ownerDocument.body.style.width = '180px';
    }, turn);
    const shown = panel.locator('article.turn').last();
    await shown.scrollIntoViewIfNeeded();
    await shot('table-narrow');
    const heights = (selector) =>
      shown.locator(selector).evaluateAll((all) => all.map((e) => e.getBoundingClientRect().height));
    const cells = await heights('th, td');
    assert.ok(Math.max(...cells) < 1.5 * Math.min(...cells), `${cells}: each in one line`);
    const table = shown.locator('table');
    assert.ok(await table.evaluate((e) => e.scrollWidth > e.clientWidth), 'the table scrolls by itself');
    await table.focus();
    assert.ok(await table.evaluate((e) => e.matches(':focus')), 'by keyboard too');
    const wide = await panel.locator('#turns').evaluate((e) => e.scrollWidth > e.clientWidth + 1);
    assert.ok(!wide, 'and nothing else does');
    const left = (selector) => shown.locator(selector).evaluate((e) => e.getBoundingClientRect().left);
    const [text, quote, inner] = [
      await left('table'),
      await left('blockquote > p >> nth=0'),
      await left('blockquote blockquote > p'),
    ];
    assert.ok(quote > text + 4 && inner > quote + 4, `${text}, ${quote}, ${inner}`);
    await panel.locator('body').evaluate((body) => (body.style.width = ''));
  });
});
