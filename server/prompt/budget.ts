/** Which files go into a window that not all fit in. The rule, as users are told it, is `leavingRule`. */

export const leavingRule =
  'tests, examples and documents leave first, then data, then sources; the largest of a kind before smaller ones; ' +
  'where it would leave much room, smaller ones of every kind stay';

/**
 * Of the budget: when a file does not fit and less is left, all behind it leave too. What leaves first shall not stay for a
 * few tokens, and what a large repository holds is not counted to its end.
 */
export const littleRoom = 1 / 8;

/** What helps least with questions about code goes first when not all fits: smaller numbers stay. */
function worth(file: string): number {
  if (
    /(^|\/)(tests?|__tests__|spec|specs|fixtures|testdata|examples?|samples?|locales?|i18n|docs?)\//.test(
      file,
    )
  )
    return 2;
  return /\.(json|ya?ml|csv|tsv|svg|xml|txt|md|rst|lock|po)$/.test(file) ? 1 : 0;
}

/** Files in the order in which they stay. */
export function stayingOrder<T extends { path: string; bytes: number }>(files: readonly T[]): T[] {
  return [...files].sort(
    (a, b) => worth(a.path) - worth(b.path) || a.bytes - b.bytes || (a.path < b.path ? -1 : 1),
  );
}
