/** Arrows only point down. The rules are .dependency-cruiser.cjs; here they are run, and shown to bite. */
import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { cruise, type ICruiseOptions, type ICruiseResult, type IFlattenedRuleSet } from 'dependency-cruiser';
import { describe, expect, it } from 'vitest';
import { root } from './project';

const ruleSet = createRequire(import.meta.url)(join(root, '.dependency-cruiser.cjs')) as IFlattenedRuleSet;

/** `rule: from -> to` for every broken rule. */
async function violations(baseDir: string): Promise<string[]> {
  const options: ICruiseOptions = {
    ruleSet,
    validate: true,
    baseDir,
    doNotFollow: { path: 'node_modules' },
    tsPreCompilationDeps: true,
  };
  const folders = ['extension', 'server'].filter((folder) => existsSync(join(baseDir, folder)));
  const { output } = await cruise(folders, options);
  const { summary } = output as ICruiseResult;
  return summary.violations.map(({ rule, from, to }) => `${rule.name}: ${from} -> ${to}`);
}

describe('import rules', () => {
  it('hold', async () => {
    expect(await violations(root)).toEqual([]);
  });

  it('catch what must not be', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'longview-imports-'));
    const plant = (path: string, text: string) => {
      mkdirSync(dirname(join(folder, path)), { recursive: true });
      writeFileSync(join(folder, path), text);
    };
    plant('server/protocol.ts', 'export const methods = {};');
    plant('server/ask.ts', "import '../extension/view'; export const ask = 1;");
    plant('server/hover.ts', "import '../native/addon'; import './protocol';");
    plant('native/addon.ts', 'export {};');
    plant('extension/view.ts', "import { ask } from '../server/ask'; import '../server/protocol'; void ask;");
    try {
      expect((await violations(folder)).sort()).toEqual([
        'extension-knows-only-the-protocol: extension/view.ts -> server/ask.ts',
        'no-cycles: extension/view.ts -> server/ask.ts',
        'only-nativeEngine-loads-the-addon: server/hover.ts -> native/addon.ts',
        'server-runs-without-vscode: server/ask.ts -> extension/view.ts',
      ]);
    } finally {
      rmSync(folder, { recursive: true });
    }
  });
});
