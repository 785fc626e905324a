/** What a terminal, or a program, sends to one that shall end. */

/**
 * Windows has others: Ctrl+Break, and that the window of the terminal is closed, after which there are seconds. Elsewhere a closed
 * terminal is left to the system: under `nohup` the work goes on.
 */
export function endingSignals(): NodeJS.Signals[] {
  return process.platform === 'win32' ? ['SIGINT', 'SIGBREAK', 'SIGHUP'] : ['SIGINT', 'SIGTERM'];
}
