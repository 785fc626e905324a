/** Texts of the model, of the server and of files, for notifications. */

/**
 * The editor makes links of `[label](target)` in a notification, of a command too: what a model has read in a file could
 * run it. A space between the brackets leaves a text.
 */
export function plainText(text: string): string {
  return text.replaceAll('](', '] (');
}
