/** Where programs keep what is theirs, by the custom of the system. What XDG's variables name wins everywhere. */
import { homedir } from 'node:os';
import path from 'node:path';

const mine = 'longview';
const inHome = (...names: string[]) => path.join(homedir(), ...names);
/** No other machine of the same account gets it. */
const localAppData = () => process.env.LOCALAPPDATA || inHome('AppData', 'Local');

/** For what can be made again. */
export function cacheFolder(): string {
  const { XDG_CACHE_HOME: named } = process.env;
  if (named) return path.join(named, mine);
  if (process.platform === 'win32') return path.join(localAppData(), mine);
  return process.platform === 'darwin' ? inHome('Library', 'Caches', mine) : inHome('.cache', mine);
}

/** For what stays. */
export function dataFolder(): string {
  const { XDG_DATA_HOME: named } = process.env;
  if (named) return path.join(named, mine);
  if (process.platform === 'win32') return path.join(localAppData(), mine);
  return process.platform === 'darwin'
    ? inHome('Library', 'Application Support', mine)
    : inHome('.local', 'share', mine);
}
