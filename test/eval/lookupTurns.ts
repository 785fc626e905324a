/**
 * Questions about real code in the built-in model's own kinds, each with the whole answer: the wording is the one it was
 * made with, learnt from what it answers greedily where it is right.
 */
import type { Fact, FactFile } from './facts';
import { shuffled } from './questions';

export interface Turn {
  kind: string;
  question: string;
  answer: string;
}

type Placed = Fact & { path: string };

/** How often each kind is asked, in turn; lists are few because the model is poor at them. */
const mix = 'where value doc missing parameters search where default bases value doc missing search returns imports value'.split(' '); // prettier-ignore

/** At most `count` turns about `files`; `others` are files of the repository that are not in the prompt. */
export function lookupTurns(
  files: FactFile[],
  others: FactFile[],
  count: number,
  random: () => number,
): Turn[] {
  const unused = shuffled(unambiguous(files), random);
  const take = (fits: (fact: Placed) => unknown) => {
    const at = unused.findIndex((fact) => fits(fact));
    return at < 0 ? undefined : unused.splice(at, 1)[0];
  };
  const missing = shuffled(absent(files, others), random);
  const lists = shuffled(
    files.filter((file) => file.imports.length >= 2 && file.imports.length <= 6),
    random,
  );
  const make: Record<string, () => [question: string, answer: string] | undefined> = {
    where: () =>
      asked(
        take((fact) => fact.kind !== 'constant'),
        where,
      ),
    value: () =>
      asked(
        take((fact) => plain(fact.value)),
        value,
      ),
    doc: () =>
      asked(
        take((fact) => documented(fact)),
        doc,
      ),
    search: () =>
      asked(
        take((fact) => fact.kind === 'function' && documented(fact)),
        search,
      ),
    parameters: () =>
      asked(
        take((fact) => between(fact.parameters?.length, 1, 5)),
        parameters,
      ),
    default: () =>
      asked(
        take((fact) => plain(fact.defaults?.[0]?.[1])),
        defaultValue,
      ),
    returns: () =>
      asked(
        take((fact) => plain(fact.returns)),
        returns,
      ),
    bases: () =>
      asked(
        take((fact) => fact.bases?.length === 1),
        bases,
      ),
    missing: () => cannotFind(missing.pop()),
    imports: () => imports(lists.pop()),
  };
  const turns: Turn[] = [];
  // A kind that has run out is passed over.
  for (let i = 0; turns.length < count && i < count * 4; i++) {
    const kind = mix[i % mix.length]!;
    const made = make[kind]!();
    if (made) turns.push({ kind, question: made[0], answer: made[1] });
  }
  return shuffled(turns, random);
}

/** Facts whose name is bound nowhere else in the files and says enough to be asked for alone. */
function unambiguous(files: FactFile[]): Placed[] {
  const counts = new Map<string, number>();
  for (const name of files.flatMap((file) => file.bound)) counts.set(name, (counts.get(name) ?? 0) + 1);
  return files
    .flatMap((file) => file.facts.map((fact) => ({ ...fact, path: file.path })))
    .filter(({ name }) => counts.get(name) === 1 && name.length >= 5 && !name.startsWith('__'));
}

/** Names that the rest of the repository defines and that stand nowhere in the files, in no capitalisation. */
function absent(files: FactFile[], others: FactFile[]): string[] {
  const text = files.map((file) => file.text.toLowerCase()).join('\n');
  const names = others.flatMap((file) => file.facts).filter((fact) => fact.kind !== 'constant');
  return [...new Set(names.map(({ name }) => name))].filter(
    (name) => name.length >= 6 && !name.startsWith('__') && !text.includes(name.toLowerCase()),
  );
}

const asked = (fact: Placed | undefined, as: (fact: Placed) => [string, string]) => fact && as(fact);
const at = ({ path, name }: Placed) => `[${path}#${name}]`;
const code = (text: string) => `\`${text}\``;
const between = (x: number | undefined, low: number, high: number) =>
  x !== undefined && x >= low && x <= high;
const plain = (text: string | null | undefined) => text && text.length <= 40 && !/[`\n]/.test(text);
const documented = ({ doc }: Fact) => doc && between(doc.length, 20, 140) && !/[`*:\\]/.test(doc);

/** `a`, `b` and `c`. */
export function listed(items: string[]): string {
  const last = items.at(-1)!;
  return items.length === 1 ? last : `${items.slice(0, -1).join(', ')} and ${last}`;
}

function where(fact: Placed): [string, string] {
  return [`Where is ${code(fact.name)} defined?`, `${code(fact.name)} is a ${fact.kind} in ${at(fact)}.`];
}

function value(fact: Placed): [string, string] {
  return valueTurn(fact.name, fact.value!, fact.path);
}

export function valueTurn(name: string, literal: string, path: string): [string, string] {
  const answer = `${code(name)} is ${code(literal)}, set in [${path}#${name}].`;
  return [`What is the value of ${code(name)}?`, answer];
}

function doc(fact: Placed): [string, string] {
  return [`What does ${code(fact.name)} do?`, `${fact.doc!} It is a ${fact.kind} in ${at(fact)}.`];
}

function search(fact: Placed): [string, string] {
  return [`Which function does this: "${fact.doc!}"?`, `${code(fact.name)} in ${at(fact)}: ${fact.doc!}`];
}

function parameters(fact: Placed): [string, string] {
  const list = listed(fact.parameters!.map(code));
  return [`What parameters does ${code(fact.name)} take?`, `${code(fact.name)} takes ${list}: ${at(fact)}.`];
}

function defaultValue(fact: Placed): [string, string] {
  const [name, literal] = fact.defaults![0]!;
  return [
    `What is the default of ${code(name)} in ${code(fact.name)}?`,
    `In ${code(fact.name)}, ${code(name)} defaults to ${code(literal)}: ${at(fact)}.`,
  ];
}

function returns(fact: Placed): [string, string] {
  return [
    `What does ${code(fact.name)} return?`,
    `${code(fact.name)} returns ${code(fact.returns!)}: ${at(fact)}.`,
  ];
}

function bases(fact: Placed): [string, string] {
  const answer = `${code(fact.name)} inherits from ${code(fact.bases![0]!)}: ${at(fact)}.`;
  return [`What does ${code(fact.name)} inherit from?`, answer];
}

function cannotFind(name: string | undefined): [string, string] | undefined {
  if (!name) return undefined;
  return [`Where is ${code(name)} defined?`, `I can't find ${code(name)} in this repository.`];
}

function imports(file: FactFile | undefined): [string, string] | undefined {
  return (
    file && [`What does ${file.path} import?`, `[${file.path}] imports ${listed(file.imports.map(code))}.`]
  );
}
