/** Which files go into a window that not all fit in. The rule, as users are told it, is `leavingRule`. */

export const leavingRule =
  'tests, examples and documents leave first, then data, then sources; the largest of a kind before smaller ones';

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

/** Files in the order in which they stay: when the budget is full, the rest of the list is left out. */
export function stayingOrder<T extends { path: string; bytes: number }>(files: readonly T[]): T[] {
  return [...files].sort(
    (a, b) => worth(a.path) - worth(b.path) || a.bytes - b.bytes || (a.path < b.path ? -1 : 1),
  );
}
