// Packs the evaluation for a machine without npm: `node test/eval/bundle.mjs [FOLDER]` (default dist/eval) leaves eval.js with all
// that it imports, the addon, and the GPU's library where that was built. There, `node FOLDER/eval.js --data F --model M` runs it;
// data is made where npm is.
import { copyFileSync, existsSync, mkdirSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { build } from 'esbuild';

const root = resolve(import.meta.dirname, '../..');
const folder = resolve(process.argv[2] ?? join(root, 'dist/eval'));
mkdirSync(folder, { recursive: true });

await build({
  entryPoints: [join(root, 'test/eval/evaluate.ts')],
  outfile: join(folder, 'eval.js'),
  bundle: true,
  platform: 'node',
  target: 'node20',
  format: 'cjs',
  logLevel: 'warning',
  define: { 'import.meta.dirname': '__dirname', 'import.meta.url': '__filename' },
  banner: { js: "process.env.LONGVIEW_ADDON ??= require('node:path').join(__dirname, 'longview.node');" },
});
copyFileSync(join(root, 'dist/longview.node'), join(folder, 'longview.node'));
const gpu = join(root, 'dist/longview_cuda.so');
if (existsSync(gpu)) copyFileSync(gpu, join(folder, 'longview_cuda.so'));
console.log(folder);
