// `node test/e2e/readmePicture.mjs FOLDER QUESTION...`: asks in a real VS Code, opens the last answer's sources, and its place in
// the editor, and writes media/screenshots/answer.png.
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { install, packageExtension, root, start } from './codeServer.mjs';
import { Workbench } from './workbench.mjs';

const [repository, ...questions] = process.argv.slice(2);
const folder = mkdtempSync(path.join(tmpdir(), 'longview-picture-'));
install();
const server = await start(path.join(folder, 'vscode'), {
  vsix: packageExtension(folder),
  userSettings: { 'editor.minimap.enabled': false, 'workbench.colorTheme': 'Dark 2026' },
});
const workbench = new Workbench();
try {
  const size = { width: 1280, height: 720 };
  await workbench.open(server.url, path.resolve(repository), size);
  const { page, panel } = workbench;
  await workbench.command('Longview: Focus on Longview View');
  await panel.locator('#budget button').waitFor({ timeout: 60_000 });
  await panel.getByRole('button', { name: 'Got it' }).click();
  const { x, y, height } = await page.locator('.part.auxiliarybar').boundingBox();
  await page.mouse.move(x - 1, y + height / 2);
  await page.mouse.down();
  await page.mouse.move(x - 120, y + height / 2, { steps: 5 });
  await page.mouse.up();
  for (const [i, question] of questions.entries()) {
    await panel.locator('#question').fill(question);
    await panel.locator('#question').press('Enter');
    const turn = await workbench.answered(i + 1, 900_000);
    await turn.locator('.sources').waitFor();
    console.log(await turn.innerText());
  }
  await panel.locator('.sources summary').last().click();
  await panel.locator('.citation').last().click();
  await page.locator('.monaco-editor .view-line').first().waitFor();
  await page.mouse.move(200, size.height - 150);
  await page.locator('.notification-toast').first().waitFor({ state: 'detached', timeout: 60_000 });
  await page.screenshot({ path: path.join(root, 'media/screenshots/answer.png') });
} finally {
  await workbench.close();
  await server.stop();
  rmSync(folder, { recursive: true, force: true });
}
process.exit(0);
