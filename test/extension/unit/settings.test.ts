import { readFileSync } from 'node:fs';
import { expect, it } from 'vitest';

it('gives no setting to single folders: all are read for the window', () => {
  const { contributes } = JSON.parse(readFileSync('package.json', 'utf8')) as {
    contributes: { configuration: { properties: Record<string, { scope: string }> } };
  };
  const scopes = Object.values(contributes.configuration.properties).map(({ scope }) => scope);
  expect(new Set(scopes)).toEqual(new Set(['window', 'machine-overridable']));
});
