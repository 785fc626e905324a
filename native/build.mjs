// Builds the engine and its addon: `node native/build.mjs` leaves dist/longview.node; `--test` also runs the engine's tests.
import { spawnSync } from 'node:child_process';
import { copyFileSync, existsSync, mkdirSync } from 'node:fs';
import { cpus } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const folder = join(root, 'build', 'native');

function found(command) {
  return spawnSync(command, ['--version'], { stdio: 'ignore' }).status === 0;
}

function run(command, args) {
  const result = spawnSync(command, args, { cwd: root, stdio: 'inherit' });
  if (result.status !== 0) process.exit(result.status ?? 1);
}

for (const [command, what] of [
  ['cmake', 'CMake 3.25 or newer'],
  [process.env.CXX ?? 'c++', 'a C++20 compiler (g++ 12 or newer)'],
]) {
  if (!found(command)) {
    console.error(
      `Building Longview's engine needs ${what}: \`${command}\` was not found. On Debian: apt-get install cmake g++.`,
    );
    process.exit(1);
  }
}

const configure = ['-S', 'native', '-B', folder, '-DCMAKE_BUILD_TYPE=Release'];
if (!existsSync(join(folder, 'CMakeCache.txt')) && found('ninja')) configure.push('-G', 'Ninja');
configure.push(`-DNODE_ADDON_API=${join(root, 'node_modules/node-addon-api')}`);
configure.push(`-DNODE_API_HEADERS=${join(root, 'node_modules/node-api-headers/include')}`);
const test = process.argv.includes('--test');
run('cmake', [...configure, '--log-level=WARNING']);
run('cmake', [
  '--build',
  folder,
  '--parallel',
  String(cpus().length),
  ...(test ? [] : ['--target', 'longview_addon']),
]);
mkdirSync(join(root, 'dist'), { recursive: true });
copyFileSync(join(folder, 'longview.node'), join(root, 'dist', 'longview.node'));
if (test) run('ctest', ['--test-dir', folder, '--output-on-failure']);
