// Makes the extension's .vsix: `node native/package.mjs [TARGET...]`, for linux-x64 where none is named, else for any of those
// of native/build.mjs. The engine in it runs on every machine of its kind that VS Code runs on, whatever made it; Linux x64's
// has the code for the GPU.
import { spawnSync } from 'node:child_process';
import { cpSync, mkdirSync, readdirSync, rmSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const targets = ['linux-x64', 'linux-arm64', 'darwin-arm64', 'win32-x64'];

function run(args, cwd = root) {
  const result = spawnSync(process.execPath, args, { cwd, stdio: 'inherit' });
  if (result.status !== 0) process.exit(result.status ?? 1);
}

const wanted = process.argv.length > 2 ? process.argv.slice(2) : ['linux-x64'];
const unknown = wanted.find((target) => !targets.includes(target));
if (unknown !== undefined) {
  console.error(`There is no target ${unknown}. Targets: ${targets.join(', ')}.`);
  process.exit(2);
}

run(['esbuild.mjs']);
for (const target of wanted) {
  const gpu = target === 'linux-x64';
  run(['native/build.mjs', '--target', target, ...(gpu ? ['--cuda'] : [])]);
  const built = join(root, 'build', target);
  const stage = join(built, 'package');
  rmSync(stage, { recursive: true, force: true });
  mkdirSync(join(stage, 'dist'), { recursive: true });
  for (const name of ['package.json', 'README.md', 'LICENSE', 'CHANGELOG.md', '.vscodeignore', 'media'])
    cpSync(join(root, name), join(stage, name), { recursive: true });
  for (const name of readdirSync(join(root, 'dist')))
    if (name === 'chat' || /\.(js|wasm)$/.test(name))
      cpSync(join(root, 'dist', name), join(stage, 'dist', name), { recursive: true });
  for (const name of ['longview.node', ...(gpu ? ['longview_cuda.so'] : [])])
    cpSync(join(built, name), join(stage, 'dist', name));
  const vsce = join(root, 'node_modules/@vscode/vsce/vsce');
  run(
    [
      vsce,
      'package',
      '--no-dependencies',
      '--target',
      target,
      '--out',
      join(root, `longview-${target}.vsix`),
    ],
    stage,
  );
}
