/** A notification with a Cancel button, for a question from the palette that makes the repository be read. */
import { ProgressLocation, window } from 'vscode';
import type { AskProgress } from '../server/protocol';
import { plainText } from './plainText';

/** What is over sooner than this needs no notification. */
const delayMs = 1500;

export class ReadingNotice {
  private phase: Extract<AskProgress, { kind: 'phase' }> | undefined;
  private report: (() => void) | undefined;
  private end: () => void = () => undefined;
  private readonly ended = new Promise<void>((resolve) => (this.end = resolve));
  private readonly timer: NodeJS.Timeout;

  constructor(cancel: () => void) {
    this.timer = setTimeout(() => {
      const options = { location: ProgressLocation.Notification, title: 'Longview', cancellable: true };
      void window.withProgress(options, (progress, token) => {
        let shown = 0;
        token.onCancellationRequested(cancel);
        this.report = () => {
          const { message = '', prefill } = this.phase ?? {};
          const percent = prefill ? (100 * prefill.done) / Math.max(prefill.total, 1) : 0;
          progress.report({ message: plainText(message), increment: Math.max(0, percent - shown) });
          shown = Math.max(shown, percent);
        };
        this.report();
        return this.ended;
      });
    }, delayMs);
  }

  show(phase: Extract<AskProgress, { kind: 'phase' }>): void {
    this.phase = phase;
    this.report?.();
  }

  dispose(): void {
    clearTimeout(this.timer);
    this.end();
  }
}
