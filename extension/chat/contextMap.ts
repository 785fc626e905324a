/** What is in the prompt, folder by folder with its weight, and what is left out and why. A folder can be left out from here. */
import type { ContextResult, MoreRoom, Source } from '../../server/protocol';
import type { FromWebview } from './messages';
import { count } from './count';
import { button, element } from './element';
import { leftOut, leftOutLine, roomText } from './leftOut';
import { shareBar } from './shareBar';
import { percent } from './sourceText';

export interface Folder {
  /** As in the prompt, without a slash at the end; empty for all. */
  path: string;
  tokens: number;
  files: number;
  folders: Map<string, Folder>;
}

/** The folders of the files, each with the tokens and files of all below it. */
export function folderTree(files: ContextResult['files']): Folder {
  const root: Folder = { path: '', tokens: 0, files: 0, folders: new Map() };
  for (const { path, tokens } of files) {
    let folder = root;
    for (const name of [undefined, ...path.split('/').slice(0, -1)]) {
      if (name !== undefined) {
        const inner = folder.folders.get(name) ?? {
          path: folder.path === '' ? name : `${folder.path}/${name}`,
          tokens: 0,
          files: 0,
          folders: new Map<string, Folder>(),
        };
        folder.folders.set(name, inner);
        folder = inner;
      }
      folder.tokens += tokens;
      folder.files++;
    }
  }
  return root;
}

/** Of what an answer looked at, what makes a folder worth a mark. */
const minMarked = 0.1;

/** The share of each folder that got much of what an answer looked at; an empty path is the files beside the folders. */
export function sharesOfFolders(sources: readonly Pick<Source, 'path' | 'share'>[]): Map<string, number> {
  const shares = new Map<string, number>();
  for (const { path, share } of sources) {
    const slashes = [...path.matchAll(/\//g)].map(({ index }) => index);
    for (const end of slashes.length > 0 ? slashes : [0]) {
      const folder = path.slice(0, end);
      shares.set(folder, (shares.get(folder) ?? 0) + share);
    }
  }
  return new Map([...shares].filter(([, share]) => share >= minMarked));
}

/** Marks the folders that the last answer looked at most, in the map as it stands. */
export function markSources(map: HTMLElement, sources: readonly Source[]): void {
  const shares = sharesOfFolders(sources);
  for (const mark of map.querySelectorAll<HTMLElement>('.looked')) {
    const share = shares.get(mark.dataset.folder ?? '');
    mark.hidden = share === undefined;
    mark.title = share === undefined ? '' : `Looked at most by the last answer: ${percent(share)}`;
    mark.firstElementChild!.textContent = mark.title;
  }
}

/** A dot, once there is something to mark, with its meaning for who does not see it. */
function markOf(folder: string): HTMLElement {
  const mark = element('span', 'looked', element('span', 'unseen'));
  mark.dataset.folder = folder;
  mark.hidden = true;
  return mark;
}

function folderRow(folder: Folder, total: number, post: (message: FromWebview) => void): HTMLElement {
  const name = folder.path.slice(folder.path.lastIndexOf('/') + 1);
  const leave = () => post({ type: 'excludeFolder', path: folder.path });
  const exclude = button('action leave', leave, element('span', '', 'Leave out'));
  exclude.title = `Leave ${folder.path}/ out of the prompt`;
  exclude.setAttribute('aria-label', exclude.title);
  const line = [
    element('span', 'name', `${name}/`, markOf(folder.path)),
    shareBar(folder.tokens / Math.max(total, 1)),
    element('span', 'tokens', count(folder.tokens)),
  ];
  if (folder.folders.size === 0) return element('div', 'folder', ...line, exclude);
  const summary = element('summary', '', ...line);
  summary.dataset.of = folder.path;
  const details = element('details', 'folder', summary);
  details.append(...folderRows(folder, total, post));
  // Beside the summary: a screen reader does not get to a button within another.
  return element('div', 'branch', exclude, details);
}

function folderRows(folder: Folder, total: number, post: (message: FromWebview) => void): HTMLElement[] {
  return [...folder.folders.values()]
    .sort((a, b) => b.tokens - a.tokens || (a.path < b.path ? -1 : 1))
    .map((inner) => folderRow(inner, total, post));
}

/** Longer lists are in the document. */
const maxListed = 100;

function leftOutGroups(skipped: ContextResult['skipped']): HTMLElement[] {
  return leftOut(skipped).map(([heading, files]) => {
    const list = element('ul', '');
    for (const file of files.slice(0, maxListed)) list.append(element('li', '', leftOutLine(file)));
    if (files.length > maxListed)
      list.append(element('li', '', `and ${count(files.length - maxListed)} more`));
    const summary = element('summary', '', heading);
    // Without the count, which changes.
    summary.dataset.of = `left out: ${files[0]!.reason}`;
    return element('details', 'left-out', summary, list);
  });
}

/** Controls that one can get to, of one kind. */
function inReach(map: HTMLElement, kind: string): HTMLElement[] {
  return [...map.querySelectorAll<HTMLElement>(kind)].filter((control) => control.checkVisibility());
}

const nameOf = ({ dataset, title, textContent }: HTMLElement) => dataset.of ?? (title || textContent);

/** Fills a map anew by `fill`. What was open stays so, and the focus on its control; where that is gone, on the next of its kind. */
function keepingPlace(map: HTMLElement, fill: () => void): void {
  const open = new Set([...map.querySelectorAll<HTMLElement>('details[open] > summary')].map(nameOf));
  const { scrollTop } = map;
  const { activeElement } = document;
  const focused =
    document.hasFocus() && map.contains(activeElement) ? (activeElement as HTMLElement) : undefined;
  const before = focused ? inReach(map, focused.tagName) : [];
  fill();
  for (const summary of map.querySelectorAll('summary'))
    (summary.parentElement as HTMLDetailsElement).open = open.has(nameOf(summary));
  map.scrollTop = scrollTop;
  if (!focused) return;
  const now = inReach(map, focused.tagName);
  const same = now.find((control) => nameOf(control) === nameOf(focused));
  (same ?? now[before.indexOf(focused)] ?? now.at(-1))?.focus();
}

/** Fills `into`. */
export function showContextMap(
  into: HTMLElement,
  contents: ContextResult,
  post: (message: FromWebview) => void,
): void {
  keepingPlace(into, () => into.replaceChildren(...rows(contents, post)));
}

function rows(
  { files, skipped, usedTokens, reservedTokens, window, room }: ContextResult,
  post: (message: FromWebview) => void,
): HTMLElement[] {
  const tree = folderTree(files);
  const own = files.filter(({ path }) => !path.includes('/'));
  const document = button('action', () => post({ type: 'showContext' }), 'Open as a document');
  const sums = `${count(usedTokens)} tokens used, ${count(reservedTokens)} kept free for questions and answers, of ${count(window)}. `;
  const over = skipped.filter(({ reason }) => reason === 'over-budget').length;
  const lacking = `${count(over)} ${over === 1 ? 'file has' : 'files have'} no room, see below. `;
  return [
    element('p', 'sums', sums, over > 0 ? lacking : '', document),
    ...(room ? [roomRow(room, post)] : []),
    ...folderRows(tree, tree.tokens, post),
    ...(own.length > 0 ? [ownRow(own)] : []),
    ...(skipped.length > 0 ? [element('h3', '', 'Left out'), ...leftOutGroups(skipped)] : []),
  ];
}

/** What gives them room. */
function roomRow(room: MoreRoom, post: (message: FromWebview) => void): HTMLElement {
  const name = room.by === 'stretch' ? 'Enlarge the window' : 'Keep it in 4 bits';
  return element(
    'p',
    'room',
    `${roomText(room)} `,
    button('action', () => post({ type: 'makeRoom' }), name),
  );
}

/** The files that lie in no folder. */
function ownRow(own: ContextResult['files']): HTMLElement {
  const name = `${own.length} ${own.length === 1 ? 'file' : 'files'} beside the folders`;
  const tokens = own.reduce((sum, file) => sum + file.tokens, 0);
  return element(
    'div',
    'folder',
    element('span', 'name', name, markOf('')),
    element('span', 'tokens', count(tokens)),
  );
}
