/**
 * Texts for a terminal. What a model wrote, what a file is called and what a model file says of itself may hold control
 * characters, which would move the cursor, rename the window or fill the clipboard: they are shown instead.
 */

/** Also marks that turn the direction of what follows: a path would read as another. */
const unseen = /[\p{Cc}\u202a-\u202e\u2066-\u2069]/gu;

const shown = (character: string) => `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`;

/** Of one line, as a path is. */
export function visible(text: string): string {
  return text.replace(unseen, shown);
}

/** Of several, with tabs. In JSON it means the same as before. */
export function visibleLines(text: string): string {
  return text.replace(unseen, (character) => (/[\n\t]/.test(character) ? character : shown(character)));
}

/** A result. */
export function print(text: string): void {
  console.log(visibleLines(text));
}

/** Progress, and what is wrong. */
export function tell(text: string): void {
  console.error(visibleLines(text));
}
