// `npm run test:e2e`: packages the extension, installs it into a real VS Code, and drives it in a real browser.
// `npm run test:e2e -- reading`: this suite alone.
import { cpSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { runTests } from '@vscode/test-electron';
import { build } from 'esbuild';
import Mocha from 'mocha';
import { chromium, install, packageExtension, root, start } from './codeServer.mjs';
import { startHub } from './slowHub.mjs';

const suites = ['host', 'panel', 'trouble', 'reading', 'hover', 'models', 'walkthrough'];
const wanted = process.argv.length > 2 ? process.argv.slice(2) : suites;
for (const name of wanted) if (!suites.includes(name)) throw new Error(`There is no suite ${name}.`);

const folder = mkdtempSync(path.join(tmpdir(), 'longview-e2e-'));
const shots = path.join(root, 'test/e2e/screenshots');
rmSync(shots, { recursive: true, force: true });
mkdirSync(shots, { recursive: true });

install();
chromium();

const vsix = packageExtension(folder);

/** A small repository with things to find. */
const workspace = path.join(folder, 'orders');
const files = {
  'net/retry.py':
    '"""Retries of requests."""\n\nimport random\n\nMAX_ATTEMPTS = 7\n\n\ndef retry_delay(attempt: int) -> float:\n    """Seconds to wait before the next attempt."""\n    return min(60.0, 0.5 * 2**attempt) + random.random()\n\n\ndef backoff(attempt: int) -> bool:\n    """Whether there is another attempt."""\n    return attempt < MAX_ATTEMPTS\n',
  'net/session.py':
    'from net.retry import backoff, retry_delay\n\n\nclass Session:\n    """A connection that is opened again when it breaks."""\n\n    def __init__(self, host: str, port: int = 8443) -> None:\n        self.host = host\n        self.port = port\n\n    def connect(self) -> None:\n        """Open the connection, with retries."""\n        attempt = 0\n        while backoff(attempt):\n            retry_delay(attempt)\n            attempt += 1\n',
  'orders/lines/model.py':
    'from dataclasses import dataclass\n\n\n@dataclass\nclass Order:\n    """An order of a customer."""\n\n    number: str\n    total: float = 0.0\n',
  'README.md': '# Orders\n\nTakes orders over a network that breaks.\n',
  '.env': 'SECRET=1\n',
};
for (const [name, text] of Object.entries(files)) {
  mkdirSync(path.dirname(path.join(workspace, name)), { recursive: true });
  writeFileSync(path.join(workspace, name), text);
}
/** One that takes a while to read: part of this project's own sources. */
const large = path.join(folder, 'server');
for (const part of ['answers', 'prompt'])
  cpSync(path.join(root, 'server', part), path.join(large, part), { recursive: true });

/** Inside the extension host, through VS Code's own test runner; LONGVIEW_VSCODE names a desktop build where there is one. */
async function testInHost() {
  const suite = path.join(root, 'build', 'suite.js');
  await build({
    entryPoints: [path.join(root, 'test/extension/suite/index.ts')],
    outfile: suite,
    bundle: true,
    platform: 'node',
    format: 'cjs',
    external: ['vscode', 'mocha'],
  });
  // It writes settings: a copy of the folder is enough for it.
  const copy = path.join(folder, 'copy', 'orders');
  cpSync(workspace, copy, { recursive: true });
  await runTests({
    vscodeExecutablePath: process.env.LONGVIEW_VSCODE ?? path.join(root, 'test/e2e/desktopShim.mjs'),
    extensionDevelopmentPath: root,
    extensionTestsPath: suite,
    launchArgs: [copy],
  });
}
if (wanted.includes('host')) await testInHost();

process.env.HF_ENDPOINT = await startHub();
const server = await start(path.join(folder, 'vscode'), {
  vsix,
  // The workspace's settings are written to in its folder.
  userSettings: { 'longview.files.exclude': ['.vscode/'] },
});
Object.assign(process.env, {
  E2E_URL: server.url,
  E2E_FOLDER: workspace,
  E2E_LARGE_FOLDER: large,
  E2E_SHOTS: shots,
  E2E_EXTENSIONS: server.extensions,
  E2E_SETTINGS: server.settingsFile,
});
try {
  const mocha = new Mocha({ reporter: 'spec' });
  for (const name of wanted.filter((name) => name !== 'host'))
    mocha.addFile(path.join(root, `test/e2e/${name}.e2e.mjs`));
  await mocha.loadFilesAsync();
  process.exitCode = await new Promise((done) => mocha.run((failures) => done(failures > 0 ? 1 : 0)));
} finally {
  await server.stop();
  rmSync(folder, { recursive: true, force: true });
}
