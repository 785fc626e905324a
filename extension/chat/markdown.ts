/** An answer's Markdown to HTML: no HTML of its own, no images, https links and our citations only. Sanitised again after. */
import MarkdownIt from 'markdown-it';
import type { Citation, MissingPlace } from '../../server/protocol';

/** What the renderer knows of the answer at hand. */
interface Environment extends Record<string | symbol, unknown> {
  citations: readonly Citation[];
  missing: readonly MissingPlace[];
}

export const markdown = new MarkdownIt({ html: false, linkify: false, breaks: false });
markdown.disable('image');
markdown.validateLink = (url) => /^https:\/\//i.test(url);

// What the server has checked of the places in an answer: a link, or a mark that there is no such place.
markdown.inline.ruler.before('link', 'citation', (state, silent) => {
  if (state.src[state.pos] !== '[') return false;
  const { citations, missing } = state.env as unknown as Environment;
  const here = ({ text }: { text: string }) => state.src.startsWith(text, state.pos);
  const index = citations.findIndex(here);
  const citation = citations[index];
  const place = citation ?? missing.find(here);
  if (!place) return false;
  if (!silent) {
    if (citation) state.push('citation', 'a', 0).meta = { index, citation };
    else state.push('missing', 'span', 0).meta = { place };
  }
  state.pos += place.text.length;
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

export interface Block {
  /** Changes when the block does. */
  source: string;
  html: string;
}

/** The top-level blocks of an answer, so that only what changed is shown again. */
export function renderBlocks(
  answer: string,
  citations: readonly Citation[],
  missing: readonly MissingPlace[] = [],
): Block[] {
  const environment: Environment = { citations, missing };
  const tokens = markdown.parse(answer, environment);
  const lines = answer.split('\n');
  const blocks: Block[] = [];
  for (let start = 0; start < tokens.length;) {
    let end = start + 1;
    for (let depth = tokens[start]!.nesting; depth > 0 && end < tokens.length; end++)
      depth += tokens[end]!.nesting;
    const [from, to] = tokens[start]!.map ?? [0, lines.length];
    // Both arrive with the end of an answer: their numbers are part of what a block looks like.
    blocks.push({
      source: `${citations.length}:${missing.length}:${lines.slice(from, to).join('\n')}`,
      html: markdown.renderer.render(tokens.slice(start, end), markdown.options, environment),
    });
    start = end;
  }
  return blocks;
}
