// Bundles what runs under Node into dist/, beside the native addon.
import { copyFileSync } from 'node:fs';
import { build } from 'esbuild';

await build({
  entryPoints: { cli: 'server/cli.ts' },
  outdir: 'dist',
  bundle: true,
  platform: 'node',
  target: 'node20',
  format: 'cjs',
  sourcemap: true,
  logLevel: 'warning',
});
// tiktoken loads its WebAssembly from the folder of the code that asks for it.
copyFileSync('node_modules/tiktoken/tiktoken_bg.wasm', 'dist/tiktoken_bg.wasm');
