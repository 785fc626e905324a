/** Every message between the extension and its panel (postMessage), and the state that they are about. */
import type {
  AskProgress,
  AskResult,
  AskStats,
  Citation,
  ContextResult,
  MissingPlace,
  Source,
  Status,
} from '../../server/protocol';

export interface Turn {
  id: string;
  question: string;
  /** It was too long to be asked, and is not asked again: `question` is its beginning. */
  refused?: boolean;
  answer: string;
  state: 'waiting' | 'streaming' | 'done' | 'stopped' | 'failed';
  citations: Citation[];
  /** Absent in chats that were kept before there was such a check. */
  missing?: MissingPlace[];
  /** Known a moment after the answer; absent where it is not. */
  sources?: Source[];
  stats?: AskStats;
  finish?: AskResult['finish'];
  full?: AskResult['full'];
  /** A sentence for the user when state is failed. */
  error?: string;
  /** What happens before the first word; `prefill` while the repository is read. */
  progress?: Pick<Extract<AskProgress, { kind: 'phase' }>, 'message' | 'prefill'>;
  context?: { files: number; skipped: number };
}

export interface ChatState {
  turns: Turn[];
  status: Status;
  /** Shown once with the built-in model, until dismissed. */
  builtInNote: boolean;
  /** Whether there is anything to ask about. */
  folderOpen: boolean;
  /** What is in the prompt, once it is known. */
  contents?: ContextResult;
}

/** Host -> webview. The host owns the state: a snapshot when the view is made, then deltas. */
export type ToWebview =
  | { type: 'snapshot'; seq: number; state: ChatState }
  | { type: 'turn'; seq: number; turn: Turn } //                    new, or replaced by id
  | { type: 'text'; seq: number; turnId: string; text: string } //  to append; batched at about 50 ms
  | { type: 'sources'; seq: number; turnId: string; sources: Source[] }
  | { type: 'status'; seq: number; status: Status }
  | { type: 'contents'; seq: number; contents: ContextResult }
  | { type: 'focusInput'; seq: number };

/** Webview -> host. Everything in it is checked again by the host. */
export type FromWebview =
  | { type: 'ready' }
  | { type: 'ask'; question: string }
  | { type: 'stop' }
  | { type: 'clear' }
  | { type: 'copy'; text: string }
  | { type: 'insert'; text: string }
  /** Opens code in an editor of its own. */
  | { type: 'openCode'; text: string; language: string }
  /** Leaves a folder of the prompt out, by the workspace's settings. */
  | { type: 'excludeFolder'; path: string }
  /** Gives the model a larger window, by the workspace's settings. */
  | { type: 'makeRoom' }
  | { type: 'openCitation'; turnId: string; index: number }
  | { type: 'openSource'; turnId: string; index: number }
  | { type: 'dismissBuiltInNote' }
  | { type: 'chooseModel' }
  | { type: 'openFolder' }
  | { type: 'retry'; turnId: string }
  | { type: 'showContext' };
