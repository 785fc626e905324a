/** One question and its answer on the page. */
import DOMPurify from 'dompurify';
import type { AskStats, Source } from '../../server/protocol';
import type { FromWebview, Turn } from './messages';
import { count } from './count';
import { cutText } from './cutText';
import { button, element } from './element';
import { fenceLanguage } from './fenceLanguage';
import { highlight } from './highlight';
import { renderBlocks } from './markdown';
import { questionName, questionView } from './questionView';
import { sourcesView } from './sourcesView';

const allowed = {
  ALLOWED_TAGS: [
    ...[
      'p',
      'br',
      'hr',
      'h1',
      'h2',
      'h3',
      'h4',
      'h5',
      'h6',
      'ul',
      'ol',
      'li',
      'blockquote',
      'pre',
      'code',
      'em',
      'strong',
    ],
    ...['s', 'a', 'table', 'thead', 'tbody', 'tr', 'th', 'td', 'span', 'wbr'],
  ],
  ALLOWED_ATTR: ['href', 'title', 'class', 'role', 'tabindex', 'data-citation', 'start'],
  ALLOW_DATA_ATTR: false,
  // Values of other attributes are held to the rule for links.
  ADD_URI_SAFE_ATTR: ['tabindex', 'data-citation', 'start'],
  ALLOWED_URI_REGEXP: /^https:\/\//i,
};

const seconds = (s: number) => (s < 10 ? `${s.toFixed(1)} s` : `${Math.round(s)} s`);

function action(label: string, title: string, press: () => void): HTMLButtonElement {
  const made = button('action', press, label);
  made.title = title;
  return made;
}

const copiedMs = 1500;

/** Says for a moment that it did. */
function copyButton(title: string, copy: () => void): HTMLButtonElement {
  const made = action('Copy', title, () => {
    copy();
    made.textContent = 'Copied';
    setTimeout(() => (made.textContent = 'Copy'), copiedMs);
  });
  return made;
}

export class TurnView {
  readonly root = element('article', 'turn');
  private readonly facts = element('p', 'facts');
  private readonly body = element('div', 'answer');
  private readonly sources = element('div', '');
  private readonly foot = element('div', 'foot');
  /** What the blocks of the answer show. */
  private shown: string[] = [];

  constructor(
    private turn: Turn,
    private readonly post: (message: FromWebview) => void,
  ) {
    this.root.append(questionView(turn.question), this.facts, this.body, this.sources, this.foot);
    this.body.addEventListener('click', ({ target }) => this.open(target as Element));
    this.body.addEventListener('keydown', ({ key, target }) => {
      if (key === 'Enter') this.open(target as Element);
    });
    this.show(turn);
  }

  /** The place of a citation. */
  private open(target: Element): void {
    const pressed = target.closest<HTMLElement>('.citation');
    if (pressed)
      this.post({ type: 'openCitation', turnId: this.turn.id, index: Number(pressed.dataset.citation) });
  }

  append(text: string): void {
    this.turn = { ...this.turn, answer: this.turn.answer + text };
    this.showAnswer();
  }

  show(turn: Turn): void {
    this.turn = turn;
    this.root.setAttribute('role', 'article');
    this.root.setAttribute('aria-label', questionName(turn.question));
    this.root.setAttribute('aria-busy', String(turn.state === 'waiting' || turn.state === 'streaming'));
    this.showFacts();
    this.showAnswer();
    this.showSources(turn.sources);
    this.showFoot();
  }

  /** Comes a moment after the answer: nothing else is touched, which someone may be reading or have the focus on. */
  showSources(sources: readonly Source[] = []): void {
    const { id } = this.turn;
    const open = (index: number) => this.post({ type: 'openSource', turnId: id, index });
    this.sources.replaceChildren(...(sources.length > 0 ? [sourcesView(sources, open)] : []));
  }

  private showFacts(): void {
    const { context, stats, progress, state } = this.turn;
    const facts: string[] = [];
    if (context) facts.push(`${count(context.files)} of ${count(context.files + context.skipped)} files`);
    if (stats) facts.push(...statFacts(stats));
    if (state === 'waiting') facts.push(progress?.message ?? 'Waiting');
    this.facts.textContent = facts.join(' · ');
    this.facts.classList.toggle('waiting', state === 'waiting');
  }

  private showAnswer(): void {
    const { answer, citations, missing, state } = this.turn;
    const blocks = renderBlocks(answer, citations, missing);
    const finished = state !== 'streaming';
    blocks.forEach((html, i) => {
      const last = i === blocks.length - 1;
      const key = `${last && !finished}:${html}`;
      if (this.shown[i] === key) return;
      this.shown[i] = key;
      const holder = element('div', 'block');
      holder.innerHTML = DOMPurify.sanitize(html, allowed);
      // A fence is coloured when it is closed: the last block may still grow.
      for (const code of holder.querySelectorAll('pre > code')) this.dress(code, !last || finished);
      // What scrolls can be reached by keyboard.
      for (const table of holder.querySelectorAll('table')) table.tabIndex = 0;
      const there = this.body.children[i];
      if (there) there.replaceWith(holder);
      else this.body.append(holder);
    });
    while (this.body.children.length > blocks.length) this.body.lastElementChild!.remove();
    this.shown.length = blocks.length;
  }

  /** Colours and buttons of a code block. */
  private dress(code: Element, closed: boolean): void {
    const text = code.textContent ?? '';
    const language = fenceLanguage(code.className);
    const colours = closed ? highlight(text, language) : undefined;
    if (colours) code.innerHTML = DOMPurify.sanitize(colours, allowed);
    const pre = code.parentElement!;
    pre.tabIndex = 0;
    if (!closed) return;
    const bar = element('div', 'code-bar');
    bar.append(
      element('span', 'language', language),
      copyButton('Copy this code', () => this.post({ type: 'copy', text })),
      action('Open', 'Open in an editor', () => this.post({ type: 'openCode', text, language })),
      action('Insert', 'Insert at the cursor', () => this.post({ type: 'insert', text })),
    );
    pre.before(bar);
  }

  private showFoot(): void {
    const { state, error, refused, answer, id } = this.turn;
    this.foot.replaceChildren();
    if (state === 'failed') this.foot.append(element('p', 'error', error ?? 'Something went wrong.'));
    if (state === 'stopped') this.foot.append(element('p', 'hint', 'Stopped. What was read is kept.'));
    const cut = cutText(this.turn);
    if (cut !== undefined) this.foot.append(element('p', 'hint', cut));
    if ((state === 'failed' && !refused) || state === 'stopped')
      this.foot.append(
        action('Ask again', 'Ask this question again', () => this.post({ type: 'retry', turnId: id })),
      );
    const ended = state !== 'waiting' && state !== 'streaming';
    if (ended && answer.trim() !== '')
      this.foot.append(copyButton('Copy the answer', () => this.post({ type: 'copy', text: answer.trim() })));
  }
}

function statFacts(stats: AskStats): string[] {
  const facts = [`${count(stats.promptTokens)} tokens`];
  if (stats.reusedTokens > 0) facts.push(`${count(stats.reusedTokens)} reused`);
  return [...facts, `${seconds(stats.firstTokenSeconds)} to the first word`];
}
