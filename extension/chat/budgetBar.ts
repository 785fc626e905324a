/** The bar above the question box: how much of the window the repository takes, and the way to what is in the prompt. */
import type { Status } from '../../server/protocol';
import { count } from './count';

/** How what was read stands to the files, in a few words. */
function freshnessText({ state, changedFiles }: NonNullable<Status['freshness']>): string {
  if (state === 'current') return 'up to date';
  const files = `${count(changedFiles)} ${changedFiles === 1 ? 'file' : 'files'} changed since`;
  return state === 'changed' ? files : `${files}, refreshing`;
}

/** Made once: a status comes up to ten times a second, and a button that was replaced has neither focus nor click. */
export class BudgetBar {
  private readonly meter = document.createElement('span');
  private readonly fill = document.createElement('span');
  private readonly button = document.createElement('button');
  private readonly freshness = document.createElement('span');
  private readonly unsaved = document.createElement('span');
  /** Whether the map is wanted: it is shown with the bar alone, whose button closes it. */
  private open = false;

  /** Fills `root`; its button shows and hides `map`. */
  constructor(
    private readonly root: HTMLElement,
    private readonly map: HTMLElement,
  ) {
    const { meter, fill, button, freshness, unsaved } = this;
    meter.className = 'meter';
    meter.setAttribute('role', 'meter');
    meter.setAttribute('aria-label', 'Share of the window in use');
    meter.setAttribute('aria-valuemin', '0');
    meter.setAttribute('aria-valuemax', '100');
    fill.className = 'fill';
    meter.append(fill);
    button.type = 'button';
    button.title = 'Show what is in the prompt';
    button.setAttribute('aria-controls', map.id);
    button.addEventListener('click', () => {
      this.open = !this.open;
      this.showMap();
    });
    this.showMap();
    freshness.className = 'freshness';
    unsaved.className = 'unsaved';
    root.append(meter, button, freshness, unsaved);
  }

  private showMap(): void {
    this.map.hidden = !this.open || this.root.hidden;
    this.button.setAttribute('aria-expanded', String(this.open));
  }

  show({ context, freshness, saved }: Status): void {
    this.root.hidden = !context;
    this.showMap();
    if (!context) return;
    const percent = Math.min(100, Math.round((100 * context.tokens) / context.window));
    const files = `${count(context.files)} of ${count(context.files + context.skipped)} files`;
    const tokens = `${count(context.tokens)} of ${count(context.window)} tokens`;
    this.meter.setAttribute('aria-valuenow', String(percent));
    this.meter.setAttribute('aria-valuetext', `${files}, ${tokens}`);
    this.fill.style.width = `${percent}%`;
    this.button.textContent = `${files} · ${tokens}`;
    this.freshness.hidden = !freshness;
    this.freshness.textContent = freshness ? freshnessText(freshness) : '';
    // Said here too: who does not look at the status bar would learn of it when all is read again.
    this.unsaved.hidden = !saved?.failed;
    this.unsaved.textContent = (saved?.failed && saved.note) || '';
  }
}
