/** For reading a file alone: no link is followed, and no pipe waited for. */
import { constants } from 'node:fs';

export const plainFile = { flag: constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK };
