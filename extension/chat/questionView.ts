/** A question on the page, as it was typed: its first line is the heading, pasted code stands as code, and long ones scroll. */
import { element } from './element';

export interface Part {
  code: boolean;
  text: string;
}

// The end of the text closes a fence too.
const fence = /^(`{3,})[^`\n]*\n([\s\S]*?)\n?(?:^\1`*[ \t]*$|(?![\s\S]))/gm;

/** The first line, unless that begins code, and what follows. */
export function questionParts(question: string): { title: string; rest: Part[] } {
  const rest: Part[] = [];
  let title = '';
  const words = (text: string) => {
    const [first, ...lines] = text.trim().split('\n');
    const isTitle = rest.length === 0 && first !== '';
    if (isTitle) title = first!;
    const more = isTitle ? lines.join('\n').trim() : text.trim();
    if (more !== '') rest.push({ code: false, text: more });
  };
  let end = 0;
  for (const match of question.matchAll(fence)) {
    words(question.slice(end, match.index));
    rest.push({ code: true, text: match[2]! });
    end = match.index + match[0].length;
  }
  words(question.slice(end));
  return { title, rest };
}

/** What people type, with its `code` as code. */
function withCode(text: string): (string | Node)[] {
  return text.split(/`([^`\n]+)`/).map((part, i) => (i % 2 === 1 ? element('code', '', part) : part));
}

const maxLines = 12;
const maxLength = 1000;

export function questionView(question: string): HTMLElement {
  const { title, rest } = questionParts(question);
  const heading =
    title === '' ? element('h2', 'unseen', 'Question') : element('h2', 'question', ...withCode(title));
  const view = element('div', 'asked', heading);
  for (const { code, text } of rest) {
    const part = code ? element('pre', '', element('code', '', text)) : element('p', '', ...withCode(text));
    // What scrolls can be reached by keyboard.
    if (code) part.tabIndex = 0;
    view.append(part);
  }
  if (question.split('\n').length > maxLines || question.length > maxLength) {
    view.classList.add('long');
    view.tabIndex = 0;
    view.setAttribute('role', 'group');
    view.setAttribute('aria-label', 'The whole question');
  }
  return view;
}

/** Its name among the turns. */
export function questionName(question: string): string {
  const { title } = questionParts(question);
  return `Question: ${title.length > 120 ? `${title.slice(0, 120)}…` : title}`;
}
