// Bundles into dist/: extension, server and terminal for Node, the panel for the browser; the native addon lies beside them.
import { copyFileSync } from 'node:fs';
import { build } from 'esbuild';

const common = { bundle: true, sourcemap: true, logLevel: 'warning' };
await Promise.all([
  build({
    ...common,
    entryPoints: { extension: 'extension/extension.ts', server: 'server/main.ts', cli: 'server/cli.ts' },
    outdir: 'dist',
    platform: 'node',
    target: 'node20',
    format: 'cjs',
    external: ['vscode'],
  }),
  build({
    ...common,
    entryPoints: ['extension/chat/view.ts', 'extension/chat/style.css'],
    outdir: 'dist/chat',
    platform: 'browser',
    target: 'es2022',
    format: 'iife',
    minify: true,
  }),
]);
// tiktoken loads its WebAssembly from the folder of the code that asks for it.
copyFileSync('node_modules/tiktoken/tiktoken_bg.wasm', 'dist/tiktoken_bg.wasm');
