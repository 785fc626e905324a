/** What the editor is told of the backend: one status, sent whenever it changes. */
import type { Phase, Status } from './protocol';

export class StatusBoard {
  private status: Status = { health: 'ok', phase: 'starting', message: 'Starting' };

  constructor(private readonly send: (status: Status) => void) {}

  get message(): string {
    return this.status.message;
  }

  /** A phase begins or goes on. */
  show(change: Partial<Status> & { phase: Phase; message: string }): void {
    const { prefill: _gone, ...rest } = this.status;
    this.status = { ...rest, health: 'ok', ...change };
    this.send(this.status);
  }

  /** What changes beside the phases. */
  showAside(change: Partial<Status>): void {
    this.note(change);
    this.send(this.status);
  }

  /** The same, to be told with the next change. */
  note(change: Partial<Status>): void {
    this.status = { ...this.status, ...change };
  }
}
