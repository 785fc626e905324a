/** The conversations whose state is kept: so many of them, and none but the one that goes on where memory is short. */
import { LongviewError } from '../errors';
import { whileWanted } from '../lock';
import type { Conversation } from './conversation';

/** Older ones are read again when they go on. */
const mostKept = 8;

export class Conversations {
  /** In the order of use. */
  private readonly kept = new Map<string, Conversation>();

  get(id: string): Conversation | undefined {
    return this.kept.get(id);
  }

  /** The one of that name, or what `begin` makes, as the last one used. */
  use(id: string, begin: () => Conversation): Conversation {
    const conversation = this.kept.get(id) ?? begin();
    this.kept.delete(id);
    this.kept.set(id, conversation);
    if (this.kept.size > mostKept) this.forget(this.kept.keys().next().value!);
    return conversation;
  }

  forget(id: string): void {
    const left = this.kept.get(id);
    this.kept.delete(id);
    void left?.dispose();
  }

  /** Ends what looks at an answer: it would keep a question waiting. */
  stopLooking(): void {
    for (const conversation of this.kept.values()) conversation.stopLooking();
  }

  /** Where memory is short, the state of conversations makes room for work: they read their turns again when they go on. */
  async makingRoom<T>(
    work: () => Promise<T>,
    signal: AbortSignal | undefined,
    { stays, unless }: { stays?: Conversation; unless?: () => boolean } = {},
  ): Promise<T> {
    try {
      return await work();
    } catch (error) {
      if (!(error instanceof LongviewError) || error.code !== 'out_of_memory' || unless?.()) throw error;
      for (const other of this.kept.values()) if (other !== stays) await whileWanted(other.dispose(), signal);
      return work();
    }
  }

  async dispose(): Promise<void> {
    for (const conversation of this.kept.values()) await conversation.dispose();
  }
}
