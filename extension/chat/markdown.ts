/** An answer's Markdown to HTML: no HTML of its own, no images, https links and our citations only. Sanitised again after. */
import MarkdownIt from 'markdown-it';
import type { Citation, MissingPlace } from '../../server/protocol';

/** What the renderer knows of the answer at hand, by the text of the place. */
interface Environment extends Record<string | symbol, unknown> {
  /** With their index; those of one text in the order in which they are met. */
  citations: Map<string, { index: number; citation: Citation }[]>;
  missing: Map<string, MissingPlace>;
}

export const markdown = new MarkdownIt({ html: false, linkify: false, breaks: false });
markdown.disable('image');
markdown.validateLink = (url) => /^https:\/\//i.test(url);

// What the server has checked of the places in an answer: a link, or a mark that there is no such place. A link to the web
// goes before. Paths have brackets of their own, a few.
const brackets = /\[[^\][]*(?:(?:\[[^\][]*\]|\[\[[^\][]*\]\])[^\][]*){0,8}\]/y;
markdown.inline.ruler.after('link', 'citation', (state, silent) => {
  brackets.lastIndex = state.pos;
  const text = brackets.exec(state.src)?.[0];
  if (text === undefined) return false;
  const { citations, missing } = state.env as unknown as Environment;
  const links = citations.get(text);
  const place = missing.get(text);
  if (!links && !place) return false;
  if (!silent) {
    // One text can stand for several lines: each takes the first that is left.
    if (links) state.push('citation', 'a', 0).meta = links.length > 1 ? links.shift()! : links[0]!;
    else state.push('missing', 'span', 0).meta = { place };
  }
  state.pos += text.length;
  return true;
});
// The one tag that models write where Markdown has nothing for it: a cell of a table is one line.
markdown.inline.ruler.after('citation', 'line break', (state, silent) => {
  const tag = /^<br ?\/?>/i.exec(state.src.slice(state.pos, state.pos + 6))?.[0];
  if (tag === undefined) return false;
  if (!silent) state.push('hardbreak', 'br', 0);
  state.pos += tag.length;
  return true;
});
const escape = markdown.utils.escapeHtml;
/** Lines break behind slashes and hashes. */
const label = (text: string) => escape(text.slice(1, -1)).replace(/[/#]/g, '$&<wbr>');
markdown.renderer.rules.citation = (tokens, i) => {
  const { index, citation } = tokens[i]!.meta as { index: number; citation: Citation };
  const { span, path, text } = citation;
  const lines = span
    ? span.startLine === span.endLine
      ? `${span.startLine}`
      : `${span.startLine}–${span.endLine}`
    : '';
  const title = escape(`Open ${path}${lines ? `, line ${lines}` : ''}`);
  const place = lines ? `<span class="line">:${lines}</span>` : '';
  // No button: that is a box, which a line can break before and after but not in.
  return `<a class="citation" role="link" tabindex="0" data-citation="${index}" title="${title}">${label(text)}${place}</a>`;
};
markdown.renderer.rules.missing = (tokens, i) => {
  const { text, why } = (tokens[i]!.meta as { place: MissingPlace }).place;
  return `<span class="missing" title="${escape(why)}">${label(text)} <span class="mark">not found</span></span>`;
};

/** Marks that turn the direction of what follows: code would read as another than is copied or inserted. They are shown. */
const turning = /[\u202a-\u202e\u2066-\u2069]/g;
const shown = (mark: string) => `\\u${mark.charCodeAt(0).toString(16)}`;

/** HTML of the top-level blocks of an answer, so that only what changed is shown again. */
export function renderBlocks(
  answer: string,
  citations: readonly Citation[],
  missing: readonly MissingPlace[] = [],
): string[] {
  const environment: Environment = {
    citations: new Map(citations.map(({ text }) => [text, []])),
    missing: new Map(missing.map((place) => [place.text, place])),
  };
  citations.forEach((citation, index) => environment.citations.get(citation.text)!.push({ index, citation }));
  const tokens = markdown.parse(answer, environment);
  // The page has no styles but its sheet's.
  for (const token of tokens) {
    const align = /^text-align:(\w+)$/.exec(String(token.attrGet('style')))?.[1];
    if (align) token.attrs = [['class', `align-${align}`]];
  }
  const blocks: string[] = [];
  for (let start = 0; start < tokens.length;) {
    let end = start + 1;
    for (let depth = tokens[start]!.nesting; depth > 0 && end < tokens.length; end++)
      depth += tokens[end]!.nesting;
    const html = markdown.renderer.render(tokens.slice(start, end), markdown.options, environment);
    blocks.push(html.replace(turning, shown));
    start = end;
  }
  return blocks;
}
