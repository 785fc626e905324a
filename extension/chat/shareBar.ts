/** A thin bar as long as a share of a whole: a folder's tokens, a source's attention. */
import { element } from './element';

/** `share`: 0 to 1. */
export function shareBar(share: number): HTMLElement {
  const fill = element('span', 'fill');
  fill.style.width = `${100 * Math.min(1, Math.max(0, share))}%`;
  return element('span', 'weight', fill);
}
