#!/usr/bin/env node
// Takes the arguments that @vscode/test-electron gives to VS Code's desktop program, and runs them in code-server and a
// browser: the same runTests() then serves where there is no desktop build.
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { format } from 'node:util';
import { start } from './codeServer.mjs';
import { openBrowser } from './workbench.mjs';

const options = {};
const positional = [];
for (const argument of process.argv.slice(2)) {
  const [, name, value] = /^--([^=]+)(?:=(.*))?$/.exec(argument) ?? [];
  if (name) options[name] = value ?? true;
  else positional.push(argument);
}

const folder = mkdtempSync(path.join(tmpdir(), 'longview-host-'));
const server = await start(folder);
const browser = await openBrowser();
let code;
try {
  const context = await browser.newContext();
  await context.route(
    (url) => url.hostname !== '127.0.0.1',
    (route) => route.abort(),
  );
  const page = await context.newPage();
  const ended = new Promise((resolve) => page.exposeFunction('codeAutomationExit', resolve));
  // The workbench's own lines come this way too: mocha's begin with its first format.
  let testing = false;
  await page.exposeFunction('codeAutomationLog', (_type, values) => {
    testing ||= /^%s%s/.test(values[0]);
    const line = format(...values);
    if (testing && !/^\[|open-vsx|^%c|vscode-remote:|workbench\.js/.test(line)) console.log(line);
  });
  // code-server ignores these options in the address; the page's own configuration is read.
  await page.addInitScript(
    ({ authority, extension, tests }) => {
      const original = Element.prototype.getAttribute;
      Element.prototype.getAttribute = function (name) {
        const value = original.call(this, name);
        if (name !== 'data-settings' || this.id !== 'vscode-workbench-web-configuration') return value;
        const at = (where) => ({ scheme: 'vscode-remote', authority, path: where });
        const developmentOptions = { extensions: [at(extension)], extensionTestsPath: at(tests) };
        return JSON.stringify({ ...JSON.parse(value), developmentOptions });
      };
    },
    {
      authority: new URL(server.url).host,
      extension: options.extensionDevelopmentPath,
      tests: options.extensionTestsPath,
    },
  );
  await page.goto(`${server.url}/?folder=${encodeURIComponent(path.resolve(positional[0]))}`);
  const late = new Promise((resolve) => setTimeout(resolve, 300_000, 1));
  code = await Promise.race([ended, late]);
  await page.goto('about:blank');
  await page.waitForTimeout(500);
} finally {
  await browser.close();
  await server.stop();
  rmSync(folder, { recursive: true, force: true });
}
process.exit(code);
