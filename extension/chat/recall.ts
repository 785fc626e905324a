/** Earlier questions in the question box, by the arrow keys as in a shell. */

export class Recall {
  /** How many questions back the box shows; 0: what is being typed. */
  private back = 0;

  /** `questions`: those of the chat, oldest first. */
  constructor(private readonly questions: () => readonly string[]) {}

  /**
   * What the box shows after an arrow key: undefined where the key only moves the cursor. Nothing that was typed or changed is
   * replaced.
   */
  after(key: string, text: string): string | undefined {
    const questions = this.questions();
    if (text !== (this.back === 0 ? '' : questions.at(-this.back))) this.back = 0;
    if (this.back === 0 && text !== '') return undefined;
    const back = this.back + (key === 'ArrowUp' ? 1 : key === 'ArrowDown' ? -1 : 0);
    if (back === this.back || back < 0 || back > questions.length) return undefined;
    this.back = back;
    return back === 0 ? '' : questions.at(-back);
  }
}
