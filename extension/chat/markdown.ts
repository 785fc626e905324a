/** An answer's Markdown to HTML: no HTML of its own, no images, https links and our citations only. Sanitised again after. */
import MarkdownIt from 'markdown-it';
import type { Citation } from '../../server/protocol';

/** What the renderer knows of the answer at hand. */
interface Environment extends Record<string | symbol, unknown> {
  citations: readonly Citation[];
}

export const markdown = new MarkdownIt({ html: false, linkify: false, breaks: false });
markdown.disable('image');
markdown.validateLink = (url) => /^https:\/\//i.test(url);

// A citation that the server has checked, wherever it stands as it was written.
markdown.inline.ruler.before('link', 'citation', (state, silent) => {
  if (state.src[state.pos] !== '[') return false;
  const { citations } = state.env as unknown as Environment;
  const index = citations.findIndex(({ text }) => state.src.startsWith(text, state.pos));
  const citation = citations[index];
  if (!citation) return false;
  if (!silent) {
    const token = state.push('citation', 'a', 0);
    token.meta = { index, citation };
  }
  state.pos += citation.text.length;
  return true;
});
markdown.renderer.rules.citation = (tokens, i) => {
  const { index, citation } = tokens[i]!.meta as { index: number; citation: Citation };
  const escape = markdown.utils.escapeHtml;
  const { span, path, text } = citation;
  const lines = span
    ? span.startLine === span.endLine
      ? `${span.startLine}`
      : `${span.startLine}–${span.endLine}`
    : '';
  const title = escape(`Open ${path}${lines ? `, line ${lines}` : ''}`);
  const place = lines ? `<span class="line">:${lines}</span>` : '';
  // No button: that is a box, which a line can break before and after but not in.
  const label = escape(text.slice(1, -1)).replace(/[/#]/g, '$&<wbr>');
  return `<a class="citation" role="link" tabindex="0" data-citation="${index}" title="${title}">${label}${place}</a>`;
};

export interface Block {
  /** Changes when the block does. */
  source: string;
  html: string;
}

/** The top-level blocks of an answer, so that only what changed is shown again. */
export function renderBlocks(answer: string, citations: readonly Citation[]): Block[] {
  const environment: Environment = { citations };
  const tokens = markdown.parse(answer, environment);
  const lines = answer.split('\n');
  const blocks: Block[] = [];
  for (let start = 0; start < tokens.length;) {
    let end = start + 1;
    for (let depth = tokens[start]!.nesting; depth > 0 && end < tokens.length; end++)
      depth += tokens[end]!.nesting;
    const [from, to] = tokens[start]!.map ?? [0, lines.length];
    // Citations arrive with the end of an answer: their number is part of what a block looks like.
    blocks.push({
      source: `${citations.length}:${lines.slice(from, to).join('\n')}`,
      html: markdown.renderer.render(tokens.slice(start, end), markdown.options, environment),
    });
    start = end;
  }
  return blocks;
}
