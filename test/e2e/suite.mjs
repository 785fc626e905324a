// What the suites share: a window of their own in a real VS Code, and a picture of it when a test fails.
import { readFileSync, writeFileSync } from 'node:fs';
import { changeSettings, Workbench } from './workbench.mjs';

/** For the tests of a `describe`: a window on `folder`, there before their own `before`, with `settings` until they are over. */
export function windowOn(folder, settings = {}) {
  const { E2E_URL, E2E_SETTINGS } = process.env;
  const workbench = new Workbench();
  let former;

  before(async () => {
    former = readFileSync(E2E_SETTINGS);
    changeSettings(settings);
    await workbench.open(E2E_URL, folder);
  });
  after(async () => {
    await workbench.close();
    writeFileSync(E2E_SETTINGS, former);
  });
  afterEach(async function () {
    if (this.currentTest.state === 'failed') await workbench.shot('failed').catch(() => undefined);
  });
  return workbench;
}
