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

/** `folders`: where the files may stand, which decides how deep in the prompt. */
export function rulerTurns(folders: string[], count: number, random: () => number): MadeUp {
  const share = Math.max(1, Math.floor(count / 4));
  const made = [
    needles(folders, share, random),
    keyValues(folders, share, random),
    tracking(folders, share, random),
    commonWords(folders, share, random),
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
const place = (folders: string[], file: string, random: () => number) => {
  const folder = pick(folders, random);
  return folder === '' ? file : `${folder}/${file}`;
};

/** Multi-key needle: four files of eight constants, whose names differ in a word each; some of them are asked for. */
function needles(folders: string[], count: number, random: () => number): MadeUp {
  const services = shuffled([...words], random).slice(0, 4);
  const files = services.map((service) => {
    const others = words.filter((word) => word !== service);
    const constants = shuffled(others, random)
      .slice(0, 8)
      .map((word) => ({
        name: `${service}_${word}_key`.toUpperCase(),
        value: `'${pick(words, random)}-${1000 + Math.floor(random() * 9000)}'`,
      }));
    const lines = constants.map(({ name, value }) => `${name} = ${value}`).join('\n');
    const text = `"""Keys of the ${service} service."""\n\n${lines}\n`;
    return { path: place(folders, `${service}_keys.py`, random), text, constants };
  });
  const all = files.flatMap(({ path, constants }) => constants.map((constant) => ({ ...constant, path })));
  const turns = shuffled(all, random)
    .slice(0, count)
    .map(({ name, value, path }) => {
      const [question, answer] = valueTurn(name, value, path);
      return { kind: 'needle', question, answer };
    });
  return { files: files.map(({ path, text }) => ({ path, text })), turns };
}

/** Key-value retrieval: one JSON file of random keys and values. */
function keyValues(folders: string[], count: number, random: () => number): MadeUp {
  const pairs = Array.from(
    { length: 40 },
    () => [`${hex(4, random)}-${hex(4, random)}`, hex(8, random)] as const,
  );
  const path = place(folders, 'routes.json', random);
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
function tracking(folders: string[], count: number, random: () => number): MadeUp {
  const names = shuffled([...words], random);
  const files: MadeUp['files'] = [];
  const turns: Turn[] = [];
  while (turns.length < count) {
    // A number, a constant that is set to it, and one that is set to that.
    const chain = names.splice(0, 3).map((word) => ({ word, name: `${word}_limit`.toUpperCase() }));
    const links = chain.map(({ word, name }, i) => {
      const value = i === 0 ? String(1000 + Math.floor(random() * 9000)) : chain[i - 1]!.name;
      const from = i === 0 ? '' : `from .limits import ${value}\n\n`;
      const path = place(folders, `${word}_limits.py`, random);
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

/** Common words: helpers that several of six files import: who does must be gathered from all of them. */
function commonWords(folders: string[], count: number, random: () => number): MadeUp {
  const helpers = shuffled([...words], random)
    .slice(0, count)
    .map((word) => `load_${word}_table`);
  const folder = pick(folders, random);
  const files = Array.from({ length: 6 }, (_, i) => {
    const mine = helpers.filter(() => random() < 0.35);
    const body = mine.map((name) => `    ${name}()\n`).join('') || '    pass\n';
    const line = mine.length === 0 ? '' : `from .tables import ${mine.join(', ')}\n\n\n`;
    const text = `${line}def run_step_${i + 1}():\n${body}`;
    return { path: place([folder], `step_${i + 1}.py`, random), text, mine };
  });
  const turns = helpers.flatMap((name) => {
    const users = files
      .filter(({ mine }) => mine.includes(name))
      .map(({ path }) => `[${path}]`)
      .sort();
    if (users.length === 0) return [];
    return [
      {
        kind: 'common_words',
        question: `Which files import \`${name}\`?`,
        answer: `\`${name}\` is imported in ${listed(users)}.`,
      },
    ];
  });
  return { files: files.map(({ path, text }) => ({ path, text })), turns };
}
