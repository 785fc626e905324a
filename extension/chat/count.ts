/** A number of things, with a separator every three digits. */
export function count(n: number): string {
  return n.toLocaleString('en');
}
