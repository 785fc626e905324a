/** Texts of the model, of the server and of files, for notifications and pick lists. */

/**
 * The editor makes links of `[label](target)` in a notification, of a command too: what a model has read in a file could
 * run it. A space between the brackets leaves a text. `$(name)` it draws as an icon, in a list and where a notification's
 * progress goes on in the status bar: a space of no width leaves that a text.
 */
export function plainText(text: string): string {
  return text.replaceAll('](', '] (').replaceAll('$(', '$\u200b(');
}
