/** Questions with known answers about a cut of a repository. */
import { bindings, definitions, type Definition, type SourceFile } from './symbols';

export interface Question {
  kind: 'where' | 'value' | 'missing';
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

/** At most `limits[kind]` questions of each kind about these files. */
export function makeQuestions(
  files: SourceFile[],
  limits: Record<Question['kind'], number>,
  random: () => number,
): Question[] {
  const unambiguous = shuffled(unambiguousDefinitions(files), random);
  const values = unambiguous.filter((definition) => definition.literal).slice(0, limits.value);
  const places = unambiguous.filter((definition) => !values.includes(definition)).slice(0, limits.where);
  const questions: Question[] = [];
  for (const definition of places)
    questions.push({ kind: 'where', text: whereIs(definition.name), name: definition.name, definition });
  for (const definition of values)
    questions.push({ kind: 'value', text: valueOf(definition.name), name: definition.name, definition });
  for (const [index, name] of missingNames(files, limits.missing, random).entries())
    questions.push({ kind: 'missing', text: index % 3 === 2 ? valueOf(name) : whereIs(name), name });
  return questions;
}

const whereIs = (name: string) => `Where is \`${name}\` defined?`;
const valueOf = (name: string) => `What is the value of \`${name}\`?`;

/** Definitions whose name is bound nowhere else in the files and says enough to be asked for alone. */
export function unambiguousDefinitions(files: SourceFile[]): Definition[] {
  const counts = new Map<string, number>();
  for (const file of files)
    for (const [name, count] of bindings(file)) counts.set(name, (counts.get(name) ?? 0) + count);
  return files
    .flatMap(definitions)
    .filter(({ name }) => counts.get(name) === 1 && name.length >= 5 && !/^__.*__$/.test(name));
}

/** Names in the style of the repository that stand nowhere in it, in no capitalisation. */
function missingNames(files: SourceFile[], count: number, random: () => number): string[] {
  const text = files.map((file) => file.text.toLowerCase()).join('\n');
  const names = [...new Set(files.flatMap(definitions).map((definition) => definition.name))];
  const snake = names.filter((name) => /^[a-z]+(_[a-z]+)+$/.test(name));
  const upper = names.filter((name) => /^[A-Z]+(_[A-Z]+)+$/.test(name));
  const camel = names.filter((name) => /^[A-Z][a-z]+([A-Z][a-z]+)+$/.test(name));
  const pick = <T>(list: T[]) => list[Math.floor(random() * list.length)]!;
  const styles = [
    { from: snake, split: (name: string) => name.split('_'), join: (parts: string[]) => parts.join('_') },
    { from: upper, split: (name: string) => name.split('_'), join: (parts: string[]) => parts.join('_') },
    {
      from: camel,
      split: (name: string) => name.match(/[A-Z][a-z]+/g)!,
      join: (parts: string[]) => parts.join(''),
    },
  ].filter((style) => style.from.length >= 2);
  const found = new Set<string>();
  for (let tries = 0; found.size < count && tries < count * 50 && styles.length > 0; tries++) {
    const style = pick(styles);
    const name = style.join([style.split(pick(style.from))[0]!, style.split(pick(style.from)).at(-1)!]);
    if (!text.includes(name.toLowerCase())) found.add(name);
  }
  return [...found];
}

function shuffled<T>(list: T[], random: () => number): T[] {
  const keys = new Map(list.map((item) => [item, random()]));
  return [...list].sort((a, b) => keys.get(a)! - keys.get(b)!);
}
