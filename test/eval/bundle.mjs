// Packs the evaluations for a machine without npm: `node test/eval/bundle.mjs [FOLDER]` (default dist/eval) leaves evaluate.js and
// lookups.js with all that they import, the addon, the tokenizer's code, and the GPU's library where that was built. There,
// `node FOLDER/evaluate.js --data F --model M` runs the first; data is made where npm is. `node dist/eval/lookups.js --repo D` asks
// the server in dist/.
import { copyFileSync, existsSync, mkdirSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { build } from 'esbuild';

const root = resolve(import.meta.dirname, '../..');
const folder = resolve(process.argv[2] ?? join(root, 'dist/eval'));
mkdirSync(folder, { recursive: true });

await build({
  entryPoints: ['evaluate', 'lookups'].map((name) => join(root, 'test/eval', `${name}.ts`)),
  outdir: folder,
  bundle: true,
  platform: 'node',
  target: 'node20',
  format: 'cjs',
  logLevel: 'warning',
  define: { 'import.meta.dirname': '__dirname', 'import.meta.url': '__filename' },
  banner: { js: "process.env.LONGVIEW_ADDON ??= require('node:path').join(__dirname, 'longview.node');" },
});
for (const name of ['longview.node', 'tiktoken_bg.wasm'])
  copyFileSync(join(root, 'dist', name), join(folder, name));
const gpu = join(root, 'dist/longview_cuda.so');
if (existsSync(gpu)) copyFileSync(gpu, join(folder, 'longview_cuda.so'));
console.log(folder);
