/**
 * RULER's tasks (arXiv 2404.06654, section 3) in code dress: made-up files among real ones, asked for in the words that
 * the built-in model knows. It finds and quotes, so a variable is tracked by as many questions as the chain has steps.
 */
import { listed, valueTurn, type Turn } from './lookupTurns';
import { shuffled } from './questions';

export interface MadeUp {
  files: { path: string; text: string }[];
  turns: Turn[];
}

const words = 'amber basalt cedar delta ember fjord garnet harbor indigo jasper kelp lagoon maple nickel opal pebble quartz raven slate tundra umber violet willow zephyr'.split(' '); // prettier-ignore

/** About `count` turns and the files that they are about, to be strewn over the prompt. */
export function rulerTurns(count: number, random: () => number): MadeUp {
  const share = Math.max(1, Math.floor(count / 4));
  const made = [
    needles(share, random),
    keyValues(share, random),
    tracking(share, random),
    commonWords(share, random),
  ];
  return {
    files: made.flatMap(({ files }) => files),
    turns: shuffled(
      made.map(({ turns }) => turns),
      random,
    ).flat(),
  };
}

const pick = <T>(list: readonly T[], random: () => number) => list[Math.floor(random() * list.length)]!;
const hex = (digits: number, random: () => number) =>
  Array.from({ length: digits }, () => Math.floor(random() * 16).toString(16)).join('');

/** Multi-key needle: constants with names of one make in four files; some of them are asked for. */
function needles(count: number, random: () => number): MadeUp {
  const names = shuffled([...words], random).slice(0, 16);
  const constants = names.map((word) => ({
    name: `${word}_key`.toUpperCase(),
    value: `'${pick(words, random)}-${1000 + Math.floor(random() * 9000)}'`,
  }));
  const files = Array.from({ length: 4 }, (_, i) => {
    const mine = constants.slice(i * 4, i * 4 + 4);
    const lines = mine.map(({ name, value }) => `${name} = ${value}`).join('\n');
    const text = `"""Keys of the ${names[i * 4]!} services."""\n\n${lines}\n`;
    return { path: `conf/${names[i * 4]!}_keys.py`, text, mine };
  });
  const all = files.flatMap(({ path, mine }) => mine.map((constant) => ({ ...constant, path })));
  const turns = shuffled(all, random)
    .slice(0, count)
    .map(({ name, value, path }) => {
      const [question, answer] = valueTurn(name, value, path);
      return { kind: 'needle', question, answer };
    });
  return { files: files.map(({ path, text }) => ({ path, text })), turns };
}

/** Key-value retrieval: one JSON file of random keys and values. */
function keyValues(count: number, random: () => number): MadeUp {
  const pairs = Array.from(
    { length: 40 },
    () => [`${hex(4, random)}-${hex(4, random)}`, hex(8, random)] as const,
  );
  const path = 'conf/routes.json';
  const text = JSON.stringify(Object.fromEntries(pairs), null, 2);
  const turns = shuffled([...pairs], random)
    .slice(0, count)
    .map(([key, value]) => ({
      kind: 'key_value',
      question: `Which value does ${path} give to \`${key}\`?`,
      answer: `\`${key}\` is \`${value}\`, set in [${path}].`,
    }));
  return { files: [{ path, text }], turns };
}

/** Variable tracking: constants that are set to one another, each in a file of its own, asked for link by link. */
function tracking(count: number, random: () => number): MadeUp {
  const names = shuffled([...words], random);
  const files: MadeUp['files'] = [];
  const turns: Turn[] = [];
  while (turns.length < count) {
    // A number, a constant that is set to it, and one that is set to that.
    const chain = names.splice(0, 3).map((word) => ({ word, name: `${word}_limit`.toUpperCase() }));
    const links = chain.map(({ word, name }, i) => {
      const value = i === 0 ? String(1000 + Math.floor(random() * 9000)) : chain[i - 1]!.name;
      const from = i === 0 ? '' : 'from .limits import *\n\n';
      const path = `conf/${word}_limits.py`;
      files.push({ path, text: `"""Limits of the ${word} service."""\n\n${from}${name} = ${value}\n` });
      return { name, value, path };
    });
    for (const { name, value, path } of links.reverse()) {
      const [question, answer] = valueTurn(name, value, path);
      turns.push({ kind: 'tracking', question, answer });
    }
  }
  return { files, turns: turns.slice(0, count) };
}

/** Common words: helpers, each imported by two of the files: which ones must be gathered from all of them. */
function commonWords(count: number, random: () => number): MadeUp {
  const names = shuffled([...words], random);
  const users = names.splice(0, 4).map((word) => ({ word, path: `reports/${word}_report.py` }));
  const helpers = names.slice(0, count).map((word) => {
    const two = shuffled(users, random).slice(0, 2);
    return { name: `load_${word}_table`, paths: two.map(({ path }) => path).sort() };
  });
  const files = users.map(({ word, path }) => {
    const mine = helpers.filter(({ paths }) => paths.includes(path)).map(({ name }) => name);
    const line = mine.length === 0 ? '' : `from .tables import ${mine.join(', ')}\n\n\n`;
    const body = mine.map((name) => `    ${name}()\n`).join('') || '    pass\n';
    return { path, text: `"""Makes the ${word} report."""\n\n${line}def ${word}_report():\n${body}` };
  });
  const turns = helpers.map(({ name, paths }) => ({
    kind: 'common_words',
    question: `Which files import \`${name}\`?`,
    answer: `\`${name}\` is imported in ${listed(paths.map((path) => `[${path}]`))}.`,
  }));
  return { files, turns };
}
