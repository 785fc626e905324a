/** Arrows only point down: extension -> server/protocol.ts, server -> native (through engine/nativeEngine.ts). */
module.exports = {
  forbidden: [
    {
      name: 'extension-knows-only-the-protocol',
      comment: 'The extension talks to the server through its protocol; it imports nothing else of it.',
      severity: 'error',
      from: { path: '^extension/' },
      to: { path: '^server/', pathNot: '^server/protocol\\.ts$' },
    },
    {
      name: 'server-runs-without-vscode',
      comment: 'The server also runs headless, in a terminal: nothing of VS Code in it.',
      severity: 'error',
      from: { path: '^server/' },
      to: { path: '^(extension/|vscode$)' },
    },
    {
      name: 'webview-runs-in-the-browser',
      comment: "The panel's own code is bundled for the browser.",
      severity: 'error',
      from: { path: '^extension/chat/' },
      to: { path: '^(vscode$|extension/[^/]+\\.ts$)', dependencyTypesNot: ['type-only'] },
    },
    {
      name: 'only-nativeEngine-loads-the-addon',
      comment: 'One door to the native addon.',
      severity: 'error',
      from: { path: '^server/', pathNot: '^server/engine/nativeEngine\\.ts$' },
      to: { path: '^(build|native)/' },
    },
    {
      name: 'no-cycles',
      comment: 'A cycle hides which way the arrow points.',
      severity: 'error',
      from: { path: '^(extension|server|test)/' },
      to: { circular: true },
    },
    {
      name: 'product-does-not-import-tests',
      severity: 'error',
      from: { path: '^(extension|server)/' },
      to: { path: '^test/' },
    },
  ],
  options: {
    doNotFollow: { path: 'node_modules' },
    tsConfig: { fileName: 'tsconfig.json' },
    tsPreCompilationDeps: true,
  },
};
