/** What a folder's own settings may do. */
import { readFileSync } from 'node:fs';
import { expect, it } from 'vitest';

interface Manifest {
  contributes: { configuration: { properties: Record<string, { scope: string }> } };
  capabilities: { untrustedWorkspaces: { restrictedConfigurations: string[] } };
}

const { contributes, capabilities } = JSON.parse(readFileSync('package.json', 'utf8')) as Manifest;
const settings = Object.entries(contributes.configuration.properties);

it('gives no setting to single folders: all are read for the window', () => {
  const scopes = settings.map(([, { scope }]) => scope);
  expect(new Set(scopes)).toEqual(new Set(['window', 'machine-overridable', 'machine']));
});

it('has names that the settings page can spell: it puts a space before every capital letter', () => {
  for (const [name] of settings) expect(name).not.toMatch(/[A-Z][a-z]?[A-Z]/);
});

it('lets no folder delete what was read of others', () => {
  const ofTheMachine = settings.filter(([, { scope }]) => scope === 'machine').map(([name]) => name);
  expect(ofTheMachine).toEqual(['longview.cache.maxSize']);
});

it('lets no untrusted folder load a file, read what is left out, or start the engine', () => {
  expect(capabilities.untrustedWorkspaces.restrictedConfigurations).toEqual([
    'longview.model.path',
    'longview.files.include',
    'longview.hover.enabled',
  ]);
});
