/** The ways to pre-fill that an evaluation compares. */

const names = [
  'dense',
  'a_shape',
  'vertical_slash',
  'block_sparse',
  'adaptive',
  'auto',
  'minference',
] as const;
const targets = ['fast', 'balanced', 'exact'] as const;

export interface Mode {
  /** As it was asked for: `auto:fast`. */
  text: string;
  mode: (typeof names)[number];
  target?: (typeof targets)[number];
}

export const modesHelp = `${names.join(', ')}; behind a colon a target: ${targets.join(', ')}`;

/** Throws for an unknown mode or target. */
export function parseModes(list: string): Mode[] {
  return list.split(',').map((text) => {
    const [mode = '', target, ...rest] = text.trim().split(':');
    if (!isOneOf(names, mode)) throw new Error(`There is no mode '${mode}'. Modes: ${modesHelp}.`);
    if (target === undefined) return { text: mode, mode };
    if (!isOneOf(targets, target) || rest.length > 0)
      throw new Error(`There is no target '${[target, ...rest].join(':')}'. Modes: ${modesHelp}.`);
    return { text: `${mode}:${target}`, mode, target };
  });
}

function isOneOf<T extends string>(list: readonly T[], text: string): text is T {
  return (list as readonly string[]).includes(text);
}
