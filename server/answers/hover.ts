/** Hover explanations: one short question a symbol, cached by the symbol and what was packed. */
import { createHash } from 'node:crypto';
import { namePattern, shortestHoverName } from '../protocol';
import { withPlainPlaces } from './citations';
import type { Session } from './session';

const maxTokens = 120;
const maxCached = 500;
const identifier = new RegExp(namePattern, 'gu');

/** The identifier at a place of a text; lines and characters count from 0. */
export function identifierAt(text: string, line: number, character: number): string | undefined {
  const content = text.split('\n', line + 1)[line];
  for (const { 0: name, index } of content?.matchAll(identifier) ?? [])
    if (name.length >= shortestHoverName && index <= character && character <= index + name.length)
      return name;
  return undefined;
}

/** What is cached holds for one model, symbol and text of the files that name it. Undefined where none does. */
function keyOf(session: Session, symbol: string): string | undefined {
  const files = session.repository?.files.filter((file) => file.text.includes(symbol));
  if (!files || files.length === 0) return undefined;
  const hash = createHash('sha256').update(session.model.engine.model.fingerprint).update(symbol);
  for (const file of files) hash.update('\0').update(file.text);
  return hash.digest('hex');
}

export class HoverExplanations {
  private readonly cache = new Map<string, string>();

  /** What a hover shows at once: a known explanation, or that there could be one; undefined when there is nothing to say. */
  known(session: Session, symbol: string): { text: string } | 'explainable' | undefined {
    const key = keyOf(session, symbol);
    if (key === undefined) return undefined;
    const text = this.cache.get(key);
    if (text !== undefined) return { text };
    return session.isRead ? 'explainable' : undefined;
  }

  /** Undefined when there is nothing to say: the repository is not read yet, or does not know the symbol. */
  async explain(session: Session, symbol: string, signal?: AbortSignal): Promise<string | undefined> {
    const key = keyOf(session, symbol);
    if (key === undefined) return undefined;
    const known = this.cache.get(key);
    if (known !== undefined) return known;
    const answer = await session.aside(`What does \`${symbol}\` do?`, maxTokens, signal);
    if (answer === undefined) return undefined;
    const text = withPlainPlaces(answer.trim(), session.repository?.files ?? []);
    this.cache.set(key, text);
    if (this.cache.size > maxCached) this.cache.delete(this.cache.keys().next().value!);
    return text;
  }
}
