/** A size in bytes as the lists of files say it. */
export function kib(bytes: number): string {
  return `${Math.ceil(bytes / 1024)} KiB`;
}
