/**
 * For reading a file alone: no link is followed, and no pipe waited for. Windows has neither flag, which `|` takes for 0, nor pipes
 * among its files; links were sorted out by the scan.
 */
import { constants } from 'node:fs';

export const plainFile = { flag: constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK };
