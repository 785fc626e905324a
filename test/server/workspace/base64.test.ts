/** Pictures that stand in a text, and what only looks like them. */
import { createHash, generateKeyPairSync, randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { expect, it } from 'vitest';
import { withoutBase64 } from '../../../server/workspace/base64';
import { textOf } from '../../../server/workspace/readText';
import { root } from '../reference';

const picture = readFileSync(path.join(root, 'media/screenshots/answer.png'));
const base64 = picture.toString('base64');
const kib = Math.ceil(base64.length / 1024);
const note = `[${kib} KiB of base64 left out]`;
/** As Python's `encodebytes` breaks it. */
const broken = base64.replace(/.{76}/g, '$&\n');
const brokenNote = `[${Math.ceil(JSON.stringify(broken).length / 1024)} KiB of base64 left out]`;

it.each([
  ['a notebook', (data: string) => `   "data": {\n    "image/png": "${data}",\n    "text/plain": [\n`],
  [
    'a style sheet',
    (data: string) => `.logo {\n  background: url(data:image/png;base64,${data}) no-repeat;\n}\n`,
  ],
  ['Markdown', (data: string) => `# Title\n\n![A picture](data:image/png;base64,${data})\n\nText\n`],
  ['a picture of lines', (data: string) => `<image xlink:href="data:image/png;base64,${data}" width="5"/>\n`],
  ['a program', (data: string) => `const wasm = decode('${data}');\nstart(wasm);\n`],
  ['a source map', (data: string) => `start();\n//# sourceMappingURL=data:application/json;base64,${data}`],
])('leaves base64 out of the line of %s, and nothing else', (_where, around) => {
  expect(withoutBase64(around(base64)).text).toBe(around(note));
});

it('leaves it out where its line breaks are escaped, as in a notebook', () => {
  const json = JSON.stringify({ before: 'a\nb', 'image/png': `${broken}\n`, after: 'a\nb' }, null, 1);
  const lines = withoutBase64(json).text.split('\n');
  expect(lines).toEqual([
    '{',
    ' "before": "a\\nb",',
    ` "image/png": "${brokenNote}\\n",`,
    ' "after": "a\\nb"',
    '}',
  ]);
  expect(withoutBase64(json.replaceAll('\\n', '\\r\\n')).text).toMatch(
    /"image\/png": "\[\d+ KiB of base64 left out\]\\r\\n"/,
  );
});

it('leaves everything else in', () => {
  const bytes = randomBytes(4096);
  for (const text of [
    bytes.toString('hex'),
    bytes.toString('hex').toUpperCase(),
    'GATTACA'.repeat(1000),
    'gattacaN'.repeat(1000),
    '3.14159'.repeat(1000),
    createHash('sha512').update(bytes).digest('base64'),
    bytes.toString('base64', 0, 700),
    JSON.stringify(Array.from({ length: 500 }, (_, i) => `Name${i}`).join('\n')),
    Array.from({ length: 500 }, (_, i) => `path/To/file${i}`).join(', '),
    bytes.toString('base64').replace(/.{76}/g, '$&\n'),
  ])
    expect(withoutBase64(text)).toEqual({ text, base64KiB: 0 });
});

it('says how much it left out, and counts no note that was there before', () => {
  const long = base64.repeat(Math.ceil((2 << 20) / base64.length)).replaceAll('=', '');
  const [, longNote = ''] =
    /^"(\[[\d,]+ KiB of base64 left out\])"$/.exec(withoutBase64(`"${long}"`).text) ?? [];
  const longKiB = Math.ceil(long.length / 1024);
  expect(longNote).toContain(`[${longKiB.toLocaleString('en')} KiB`);
  expect(withoutBase64(`a "${base64}" "${long}"\nb "${base64}"\nc ${longNote}\n`)).toEqual({
    text: `a "${note}" "${longNote}"\nb "${note}"\nc ${longNote}\n`,
    base64KiB: 2 * kib + longKiB,
  });
});

it('takes runs of any length, of one line or of many, in time that grows with them alone', () => {
  const run = base64.repeat(Math.ceil((12 << 20) / base64.length)).replaceAll('=', '');
  for (const line of [
    run,
    run.replace(/.{76}/g, '$&\\n'),
    run.replace(/.{60}/g, '$&\\n'),
    'a'.repeat(12 << 20),
  ]) {
    const { text } = withoutBase64(`"${line}"`);
    expect(text.length < 100 || text.includes('aaa')).toBe(true);
  }
  for (const piece of ['x'.repeat(1000), `${'x'.repeat(59)}\\n`, '\\n', '\\r\\n', '\\'])
    expect(withoutBase64(piece.repeat(200_000)).text.length).toBe(200_000 * piece.length);
});

it('reads a file that is text but for its base64, and none with a key in it', () => {
  const script = `const wasm = decode('${base64}');\n${'start(wasm);\n'.repeat(9)}`;
  expect(textOf({ path: 'a.js' }, script)).toEqual({
    text: script.replace(base64, note),
    base64KiB: kib,
  });
  const { privateKey } = generateKeyPairSync('rsa', { modulusLength: 4096 });
  const pem = privateKey.export({ type: 'pkcs8', format: 'pem' });
  const key = JSON.stringify({ key: pem });
  expect(withoutBase64(key).base64KiB).toBeGreaterThan(0);
  expect(textOf({ path: 'a.json' }, key)).toMatchObject({ reason: 'secret' });
});
