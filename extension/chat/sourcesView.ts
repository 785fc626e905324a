/** Under an answer: which files it was read from, the strongest first. Closed until someone wants to know. */
import type { Source } from '../../server/protocol';
import { button, element } from './element';
import { shareBar } from './shareBar';
import { briefly, linesOf, percent } from './sourceText';

/** Slashes are where a path may break. */
function breakable(path: string): (string | Node)[] {
  return path.split(/(?<=\/)/).flatMap((part, i) => (i > 0 ? [document.createElement('wbr'), part] : [part]));
}

function row(source: Source, open: () => void): HTMLElement {
  const lines = linesOf(source);
  const link = button('source', open, ...breakable(source.path), element('span', 'line', lines));
  link.title = `Open ${source.path}${lines && `, line ${lines.slice(1)}`}`;
  return element('li', '', link, shareBar(source.share), element('span', 'percent', percent(source.share)));
}

/** `open` gets the index of the source that was chosen. */
export function sourcesView(sources: readonly Source[], open: (index: number) => void): HTMLElement {
  const list = element('ol', '', ...sources.map((source, index) => row(source, () => open(index))));
  // Safari takes the role from a list without marks.
  list.setAttribute('role', 'list');
  const meaning =
    "By the attention of the answer's words: what they were read from, not proof that it is right.";
  return element(
    'details',
    'sources',
    element('summary', '', `Looked at most: ${briefly(sources)}`),
    list,
    element('p', 'hint', meaning),
  );
}
