/** Questions with known answers about a cut of a repository. */
import { bindings, definitions, type Definition, type SourceFile } from './symbols';

export interface Question {
  /**
   * `missing`: a name of another package. `away`: a name of this package, from a file that is not in the workspace, whose
   * traces the others may hold. `near`: made of the halves of two names from here.
   */
  kind: 'where' | 'value' | 'missing' | 'away' | 'near';
  text: string;
  name: string;
  /** Absent for names that do not exist. */
  definition?: Definition;
}

/** Small, seeded, good enough for picking. */
export function seededRandom(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    // mulberry32
    state = (state + 0x6d2b79f5) >>> 0;
    let x = state;
    x = Math.imul(x ^ (x >>> 15), x | 1);
    x ^= x + Math.imul(x ^ (x >>> 7), x | 61);
    return ((x ^ (x >>> 14)) >>> 0) / 4294967296;
  };
}

/**
 * At most `limits[kind]` questions of each kind about these files; `away` is the package's code that is not in the workspace,
 * `foreign` that of other packages.
 */
export function makeQuestions(
  files: SourceFile[],
  { away, foreign }: { away: SourceFile[]; foreign: SourceFile[] },
  limits: Record<Question['kind'], number>,
  random: () => number,
): Question[] {
  const unambiguous = shuffled(unambiguousDefinitions(files), random);
  const values = unambiguous.filter((definition) => definition.literal).slice(0, limits.value);
  const places = unambiguous.filter((definition) => !values.includes(definition)).slice(0, limits.where);
  const absent = absentFrom(files);
  const namesOf = (others: SourceFile[], limit: number) => {
    const names = new Set(unambiguousDefinitions(others).map((definition) => definition.name));
    return shuffled([...names].filter(absent), random).slice(0, limit);
  };
  const near = nearMisses(files, limits.near, absent, random);
  return [
    ...places.map((definition) => about('where', definition.name, definition)),
    ...values.map((definition) => about('value', definition.name, definition)),
    ...namesOf(foreign, limits.missing).map((name) => about('missing', name)),
    ...namesOf(away, limits.away).map((name) => about('away', name)),
    ...near.map((name) => about('near', name)),
  ];
}

/** Capitals look like a constant: its value is asked; of names that do not exist too. */
function about(kind: Question['kind'], name: string, definition?: Definition): Question {
  const asksValue = kind === 'value' || (!definition && /^[A-Z_]+$/.test(name));
  const text = asksValue ? `What is the value of \`${name}\`?` : `Where is \`${name}\` defined?`;
  return { kind, text, name, definition };
}

/** Definitions whose name is bound nowhere else in the files and says enough to be asked for alone. */
export function unambiguousDefinitions(files: SourceFile[]): Definition[] {
  const counts = new Map<string, number>();
  for (const file of files)
    for (const [name, count] of bindings(file)) counts.set(name, (counts.get(name) ?? 0) + count);
  return files
    .flatMap(definitions)
    .filter(({ name }) => counts.get(name) === 1 && name.length >= 5 && !/^__.*__$/.test(name));
}

/** Whether a name stands nowhere in the files, in no capitalisation. */
function absentFrom(files: SourceFile[]): (name: string) => boolean {
  const text = files.map((file) => file.text.toLowerCase()).join('\n');
  return (name) => !text.includes(name.toLowerCase());
}

/** Names in the style of the files: the first word of one name with the last word of another. */
function nearMisses(
  files: SourceFile[],
  count: number,
  absent: (name: string) => boolean,
  random: () => number,
): string[] {
  const names = [...new Set(files.flatMap(definitions).map((definition) => definition.name))];
  const styles = [
    { word: /[a-z]+/g, whole: /^[a-z]+(_[a-z]+)+$/, glue: '_' },
    { word: /[A-Z]+/g, whole: /^[A-Z]+(_[A-Z]+)+$/, glue: '_' },
    { word: /[A-Z][a-z]+/g, whole: /^[A-Z][a-z]+([A-Z][a-z]+)+$/, glue: '' },
  ];
  const made = styles.flatMap(({ word, whole, glue }) => {
    const words = names.filter((name) => whole.test(name)).map((name) => name.match(word)!);
    return words.flatMap((first) => words.map((last) => first[0] + glue + last.at(-1)!));
  });
  return shuffled([...new Set(made)].filter(absent), random).slice(0, count);
}

export function shuffled<T>(list: T[], random: () => number): T[] {
  const keys = new Map(list.map((item) => [item, random()]));
  return [...list].sort((a, b) => keys.get(a)! - keys.get(b)!);
}
