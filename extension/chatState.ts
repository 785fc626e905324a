/** The conversation as the extension host owns it: pure state, and the messages that tell the panel what changed. */
import type { AskProgress, AskResult, ContextResult, Source, Status } from '../server/protocol';
import type { ChatState, ToWebview, Turn } from './chat/messages';
import { chatMarkdown } from './chatMarkdown';

/** What is kept per workspace between sessions. */
export interface SavedChat {
  turns: Turn[];
  conversationId?: string;
}

type Message = ToWebview extends infer M ? (M extends { seq: number } ? Omit<M, 'seq'> : never) : never;

const maxTurns = 200;

const running = ({ state }: Turn) => state === 'waiting' || state === 'streaming';

/** Turns that come back: what was under way when they were put away has been stopped. */
function ended(turns: readonly Turn[]): Turn[] {
  return turns.map((turn) => (running(turn) ? { ...turn, state: 'stopped', progress: undefined } : turn));
}

export class Chat {
  private turns: Turn[];
  private conversationId: string | undefined;
  private status: Status = { health: 'ok', phase: 'starting', message: '' };
  private contents: ContextResult | undefined;
  private seq = 0;

  constructor(
    private readonly post: (message: ToWebview) => void,
    private builtInNote: boolean,
    private readonly folderOpen: () => boolean,
    saved?: SavedChat,
  ) {
    this.turns = ended(saved?.turns ?? []);
    this.conversationId = saved?.conversationId;
  }

  private send(message: Message): void {
    this.post({ ...message, seq: ++this.seq });
  }

  get state(): ChatState {
    const { turns, status, builtInNote, contents } = this;
    return { turns, status, builtInNote, contents, folderOpen: this.folderOpen() };
  }

  get saved(): SavedChat {
    return { turns: this.turns, conversationId: this.conversationId };
  }

  get busy(): boolean {
    return this.turns.some(running);
  }

  turn(id: string): Turn | undefined {
    return this.turns.find((turn) => turn.id === id);
  }

  snapshot(): void {
    this.send({ type: 'snapshot', state: this.state });
  }

  setStatus(status: Status): void {
    this.status = status;
    this.send({ type: 'status', status });
  }

  setContents(contents: ContextResult): void {
    this.contents = contents;
    this.send({ type: 'contents', contents });
  }

  focusInput(): void {
    this.send({ type: 'focusInput' });
  }

  dismissBuiltInNote(): void {
    this.builtInNote = false;
    this.snapshot();
  }

  /** Shows another chat; none: an empty one. */
  restore({ turns, conversationId }: SavedChat = { turns: [] }): void {
    this.turns = ended(turns);
    this.conversationId = conversationId;
    this.snapshot();
  }

  /** What the server needs of the conversation so far. */
  get asked(): { conversationId?: string; history: { question: string; answer: string }[] } {
    const done = this.turns.filter(({ state }) => state === 'done');
    return {
      conversationId: this.conversationId,
      history: done.map(({ question, answer }) => ({ question, answer })),
    };
  }

  private add(turn: Omit<Turn, 'answer' | 'citations'>): void {
    const whole: Turn = { ...turn, answer: '', citations: [] };
    this.turns = [...this.turns, whole].slice(-maxTurns);
    this.send({ type: 'turn', turn: whole });
  }

  begin(id: string, question: string): void {
    this.add({ id, question, state: 'waiting', progress: { message: 'Starting' } });
  }

  /** A question that is not asked, by its beginning. */
  refused(id: string, beginning: string, error: string): void {
    this.add({ id, question: beginning, refused: true, state: 'failed', error });
  }

  /** Takes a turn out that is asked again. */
  remove(id: string): void {
    this.turns = this.turns.filter((turn) => turn.id !== id);
    this.snapshot();
  }

  private change(id: string, change: Partial<Turn>): void {
    const index = this.turns.findIndex((turn) => turn.id === id);
    const before = this.turns[index];
    if (!before) return;
    const turn = { ...before, ...change };
    this.turns = this.turns.with(index, turn);
    this.send({ type: 'turn', turn });
  }

  /** Progress but for text, which comes batched by `text`. */
  progress(id: string, progress: Exclude<AskProgress, { kind: 'text' }>): void {
    if (progress.kind === 'context')
      this.change(id, { context: { files: progress.files, skipped: progress.skipped } });
    else if (progress.kind === 'places')
      this.change(id, { citations: progress.citations, missing: progress.missing });
    else this.change(id, { progress });
  }

  text(id: string, text: string): void {
    const turn = this.turn(id);
    if (!turn || text === '') return;
    if (turn.state === 'waiting') this.change(id, { state: 'streaming', progress: undefined });
    const index = this.turns.findIndex((candidate) => candidate.id === id);
    this.turns = this.turns.with(index, { ...this.turns[index]!, answer: this.turns[index]!.answer + text });
    this.send({ type: 'text', turnId: id, text });
  }

  done(id: string, { conversationId, ...result }: AskResult): void {
    if (!this.turn(id)) return;
    this.conversationId = conversationId;
    this.change(id, { ...result, state: 'done', progress: undefined });
  }

  /** Comes a moment after an answer is done. */
  sources(id: string, sources: Source[]): void {
    const index = this.turns.findIndex((turn) => turn.id === id && turn.state === 'done');
    if (index < 0) return;
    this.turns = this.turns.with(index, { ...this.turns[index]!, sources });
    this.send({ type: 'sources', turnId: id, sources });
  }

  stopped(id: string): void {
    this.change(id, { state: 'stopped', progress: undefined });
  }

  failed(id: string, error: string): void {
    this.change(id, { state: 'failed', error, progress: undefined });
  }

  /** The conversation as a document. */
  markdown(): string {
    return chatMarkdown(this.turns);
  }
}
