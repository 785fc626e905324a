/** The status bar item, for eyes and for a screen reader. */
import { expect, it, vi } from 'vitest';
import { createStatusBar } from '../../../extension/statusBar';
import type { Status } from '../../../server/protocol';

const item = vi.hoisted(() => ({ show() {}, tooltip: { value: '' } }));

vi.mock('vscode', () => ({
  MarkdownString: class {
    value = '';
    appendText(text: string) {
      this.value += text;
    }
  },
  StatusBarAlignment: {},
  ThemeColor: class {
    constructor(readonly id: string) {}
  },
  window: { createStatusBarItem: () => item },
}));

it('says of a server that is gone what it says of any other failure', () => {
  let show!: (status: Status) => void;
  const server = { onStatus: (listener: typeof show) => (show = listener) };
  createStatusBar({ subscriptions: [] } as never, server as never);
  show({ health: 'ok', phase: 'reading', message: 'Reading 1 of 2 tokens' });
  expect(item).toMatchObject({ text: '$(loading~spin) Reading', backgroundColor: undefined });
  show({ health: 'error', phase: 'failed', message: 'The engine stopped.' });
  expect(item).toMatchObject({
    text: '$(error) Longview',
    accessibilityInformation: { label: 'Longview: The engine stopped.' },
    backgroundColor: { id: 'statusBarItem.errorBackground' },
  });
});

it('says each thing once when the pointer is on it', () => {
  let show!: (status: Status) => void;
  const server = { onStatus: (listener: typeof show) => (show = listener) };
  createStatusBar({ subscriptions: [] } as never, server as never);
  const model = { name: 'M', path: '/m', window: 65536, builtIn: true };
  show({ health: 'ok', phase: 'ready', message: 'M on C', model, device: 'C' });
  expect(item.tooltip.value).toBe('Model: M, window 65,536 tokens\n\nDevice: C\n\n');
  show({ health: 'warning', phase: 'ready', message: 'Not enough memory.', model, device: 'C' });
  expect(item.tooltip.value).toMatch(/^Not enough memory\./);
});
