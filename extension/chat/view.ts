/** The panel's page: shows snapshots and deltas from the host, sends back what the user does. Owns no state of the chat. */
import type { Status } from '../../server/protocol';
import type { ChatState, FromWebview, ToWebview, Turn } from './messages';
import { BudgetBar } from './budgetBar';
import { markSources, showContextMap } from './contextMap';
import { count } from './count';
import { button, element } from './element';
import { Recall } from './recall';
import { TurnView } from './turnView';

declare function acquireVsCodeApi(): {
  postMessage(message: FromWebview): void;
  getState(): { draft?: string } | undefined;
  setState(state: { draft: string }): void;
};

const host = acquireVsCodeApi();
const post = (message: FromWebview) => host.postMessage(message);
const find = <T extends HTMLElement>(id: string) => document.getElementById(id) as T;

const list = find('turns');
const form = find<HTMLFormElement>('ask');
const input = find<HTMLTextAreaElement>('question');
const send = find<HTMLButtonElement>('send');
const announcer = find('status');
const wrong = find('wrong');
const progress = find('progress');
const note = find('note');
const map = find('map');
const budget = new BudgetBar(find('budget'), map);

const views = new Map<string, { turn: Turn; view: TurnView }>();
const recall = new Recall(() => [...views.values()].map(({ turn }) => turn.question));
let lastSeq = 0;
let stickToEnd = true;

const running = (turn: Turn) => turn.state === 'waiting' || turn.state === 'streaming';
const busy = () => [...views.values()].some(({ turn }) => running(turn));

function submit(): void {
  if (busy()) return post({ type: 'stop' });
  const question = input.value.trim();
  if (question === '') return;
  post({ type: 'ask', question });
  write('');
}

/** As if it had been typed. */
function write(text: string): void {
  input.value = text;
  host.setState({ draft: text });
  grow();
}

/** The box is as high as its text; where the style sheet alone does not make it so. */
function grow(): void {
  if (CSS.supports('field-sizing', 'content')) return;
  input.style.height = 'auto';
  input.style.height = `${input.scrollHeight}px`;
}

/** What had the focus may be gone now: from there one goes on with a question. */
function keepFocus(before: Element | null): void {
  const { activeElement, body } = document;
  const lost = activeElement === body || !activeElement?.checkVisibility();
  if (!lost || before === body || !document.hasFocus()) return;
  (before?.checkVisibility() ? (before as HTMLElement) : input).focus();
}

/** Discrete events only: streaming text is never announced. */
function announce(text: string): void {
  if (announcer.textContent !== text) announcer.textContent = text;
}

function showTurn(turn: Turn): void {
  const known = views.get(turn.id);
  if (known) {
    if (running(known.turn) && !running(turn)) announce(ending(turn));
    else if (isRead(turn) && !isRead(known.turn)) announce(beginning(turn));
    known.turn = turn;
    known.view.show(turn);
  } else {
    const view = new TurnView(turn, post);
    views.set(turn.id, { turn, view });
    list.querySelector('.empty')?.remove();
    list.append(view.root);
    // Also one from the palette, or asked again, while someone reads further up.
    if (running(turn)) stickToEnd = true;
    // The same words again, at this one's end, are news.
    announce(isRead(turn) ? beginning(turn) : '');
  }
}

/** What the last answer looked at, on the map. */
function markMap(): void {
  const answered = [...views.values()].filter(({ turn }) => turn.state === 'done');
  markSources(map, answered.at(-1)?.turn.sources ?? []);
}

/** Whether the repository is being read for it: of the question alone nothing is said. */
const isRead = ({ progress }: Turn) => progress?.prefill !== undefined;

function beginning({ context }: Turn): string {
  return context ? `Reading ${count(context.files)} ${context.files === 1 ? 'file' : 'files'}` : 'Reading';
}

function ending(turn: Turn): string {
  if (turn.state === 'failed') return `No answer: ${turn.error ?? ''}`;
  if (turn.state === 'stopped') return 'Stopped';
  const links = turn.citations.length;
  const missing = turn.missing?.length ?? 0;
  const parts = ['Answer ready'];
  if (links > 0) parts.push(`${links} ${links === 1 ? 'citation' : 'citations'}`);
  if (missing > 0) parts.push(`${missing} ${missing === 1 ? 'place' : 'places'} not found`);
  return parts.join(', ');
}

function showSnapshot({ turns, status, builtInNote, contents, folderOpen }: ChatState): void {
  const { scrollTop } = list;
  // Another chat begins at its end.
  if (!turns.some(({ id }) => views.has(id))) stickToEnd = true;
  views.clear();
  list.replaceChildren(note);
  if (turns.length === 0) list.append(folderOpen ? emptyState() : noFolderState());
  for (const turn of turns) showTurn(turn);
  list.scrollTop = turns.length > 0 ? scrollTop : 0;
  showStatus(status);
  if (contents) showContextMap(map, contents, post);
  markMap();
  showNote(builtInNote && status.model?.builtIn === true);
  noteWanted = builtInNote;
}

let noteWanted = false;

function empty(heading: string, explanation: string): HTMLElement {
  return element('div', 'empty', element('h2', '', heading), element('p', '', explanation));
}

/** An example as the draft, with what is to be filled in selected. */
function begin(example: string): void {
  input.value = example;
  const at = example.indexOf('…');
  input.focus();
  input.setSelectionRange(at, at + 1);
}

function emptyState(): HTMLElement {
  const box = empty(
    'Ask about this repository',
    'The model reads all of it on this machine, once; later questions cost seconds. Answers link to the lines they rest on.',
  );
  for (const example of ['Where is … defined?', 'What does … do?', 'What is the value of …?'])
    box.append(button('example', () => begin(example), example));
  return box;
}

function noFolderState(): HTMLElement {
  const box = empty('No folder is open', 'Longview reads a folder and answers questions about it.');
  box.append(button('example', () => post({ type: 'openFolder' }), 'Open a folder'));
  return box;
}

function showNote(shown: boolean): void {
  note.hidden = !shown;
  if (!shown || note.childElementCount > 0) return;
  const text =
    'The built-in model is small: it finds and quotes (where, what value, which signature) and says when something is not there. For explanations choose a larger model.';
  note.append(
    element('p', '', text),
    button('', () => post({ type: 'chooseModel' }), 'Choose a model'),
    button('', () => post({ type: 'dismissBuiltInNote' }), 'Got it'),
  );
}

let status: Status | undefined;

/** Someone pressed Enter while an answer was under way. */
let tooEarly = false;
const oneAtATime = 'One question at a time: wait for the answer, or stop it with Esc.';

/** What the server does ahead of any question; of a question, its turn says it. */
function showProgress(): void {
  tooEarly &&= busy();
  const ahead = ['starting', 'scanning', 'tokenizing', 'reading'].includes(status?.phase ?? '') && !busy();
  progress.textContent = tooEarly ? oneAtATime : ahead ? status!.message : '';
  progress.hidden = progress.textContent === '';
}

/** What is wrong, where the last turn does not say it. */
function showWrong(): void {
  const { health, message = '' } = status ?? {};
  const said = [...views.values()].at(-1)?.turn.error?.includes(message);
  wrong.textContent = health === 'ok' || said ? '' : message;
  wrong.hidden = wrong.textContent === '';
}

function showStatus(now: Status): void {
  status = now;
  const { health, message, model } = now;
  // What was wrong and is mended is news when it happens again. A page that was just made knows of nothing wrong.
  if (health === 'ok' && (form.dataset.health ?? 'ok') !== 'ok') announce('');
  form.dataset.health = health;
  // What a question fails of is said with its end.
  if (health !== 'ok' && !busy()) announce(message);
  budget.show(now);
  // While the engine restarts nothing is known of its model, and the page stays as it is.
  if (model) showNote(noteWanted && model.builtIn);
}

function refresh(): void {
  send.textContent = busy() ? 'Stop' : 'Ask';
  send.title = busy() ? 'Stop (Esc)' : 'Ask (Enter)';
  send.classList.toggle('stop', busy());
  showProgress();
  showWrong();
  showEnd();
}

/** Of the last answer, to who has not scrolled away from it. What an empty chat says is read from its beginning. */
function showEnd(): void {
  if (stickToEnd && views.size > 0) list.scrollTop = list.scrollHeight;
}

window.addEventListener('message', ({ data }: MessageEvent<ToWebview>) => {
  if (data.type !== 'snapshot' && data.seq <= lastSeq) return;
  lastSeq = data.seq;
  const { activeElement } = document;
  switch (data.type) {
    case 'snapshot':
      showSnapshot(data.state);
      break;
    case 'turn':
      showTurn(data.turn);
      markMap();
      break;
    case 'sources': {
      const known = views.get(data.turnId);
      if (known) known.turn = { ...known.turn, sources: data.sources };
      known?.view.showSources(data.sources);
      markMap();
      break;
    }
    case 'text': {
      const known = views.get(data.turnId);
      if (known) known.turn = { ...known.turn, answer: known.turn.answer + data.text };
      known?.view.append(data.text);
      break;
    }
    case 'status':
      showStatus(data.status);
      break;
    case 'contents':
      showContextMap(map, data.contents, post);
      markMap();
      break;
    case 'focusInput':
      input.focus();
      break;
  }
  refresh();
  keepFocus(activeElement);
});

list.addEventListener('scroll', () => {
  // Who scrolls does not resize it at the same time.
  if (list.clientHeight !== height) return;
  stickToEnd = list.scrollHeight - list.scrollTop - list.clientHeight < 24;
});
// The box below it grows with its text, the map opens, someone drags the panel's border.
let height = 0;
new ResizeObserver(() => {
  height = list.clientHeight;
  showEnd();
}).observe(list);
form.addEventListener('submit', (event) => {
  event.preventDefault();
  submit();
});
input.addEventListener('input', () => {
  host.setState({ draft: input.value });
  grow();
});
input.addEventListener('keydown', (event) => {
  if (event.shiftKey || event.isComposing) return;
  if (event.key === 'Enter') {
    event.preventDefault();
    if (!busy()) return submit();
    tooEarly = input.value.trim() !== '';
    showProgress();
    return announce(progress.textContent);
  }
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const question = recall.after(event.key, input.value);
  if (question === undefined) return;
  event.preventDefault();
  write(question);
});
document.addEventListener('keydown', (event) => {
  if (event.key === 'Escape' && busy()) post({ type: 'stop' });
});

input.value = host.getState()?.draft ?? '';
grow();
post({ type: 'ready' });
