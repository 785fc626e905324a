/** Pictures that stand in a text, and what only looks like them. */
import { createHash, generateKeyPairSync, randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { expect, it } from 'vitest';
import { base64LeftOut, withoutBase64 } from '../../../server/workspace/base64';
import { textOf } from '../../../server/workspace/readText';
import { root } from '../reference';

const picture = readFileSync(path.join(root, 'media/screenshots/answer.png'));
const base64 = picture.toString('base64');
const size = `${Math.ceil(base64.length / 1024)} KiB`;
const note = `[${size} of base64 left out]`;
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
  expect(withoutBase64(around(base64))).toBe(around(note));
});

it('leaves it out where its line breaks are escaped, as in a notebook', () => {
  const json = JSON.stringify({ before: 'a\nb', 'image/png': `${broken}\n`, after: 'a\nb' }, null, 1);
  const lines = withoutBase64(json).split('\n');
  expect(lines).toEqual([
    '{',
    ' "before": "a\\nb",',
    ` "image/png": "${brokenNote}\\n",`,
    ' "after": "a\\nb"',
    '}',
  ]);
  expect(withoutBase64(json.replaceAll('\\n', '\\r\\n'))).toMatch(
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
    expect(withoutBase64(text)).toBe(text);
});

it('says how much it left out', () => {
  expect(base64LeftOut(`a ${note}\nb [2,000 KiB of base64 left out]`)).toBe(
    `${(2000 + parseInt(size)).toLocaleString('en')} KiB`,
  );
  expect(base64LeftOut('a')).toBeUndefined();
});

it('takes runs of any length, of one line or of many, in time that grows with them alone', () => {
  const run = base64.repeat(Math.ceil((12 << 20) / base64.length)).replaceAll('=', '');
  for (const line of [
    run,
    run.replace(/.{76}/g, '$&\\n'),
    run.replace(/.{60}/g, '$&\\n'),
    'a'.repeat(12 << 20),
  ]) {
    const text = withoutBase64(`"${line}"`);
    expect(text.length < 100 || text.includes('aaa')).toBe(true);
  }
  for (const piece of ['x'.repeat(1000), `${'x'.repeat(59)}\\n`, '\\n', '\\r\\n', '\\'])
    expect(withoutBase64(piece.repeat(200_000)).length).toBe(200_000 * piece.length);
});

it('reads a file that is text but for its base64, and none with a key in it', () => {
  const script = `const wasm = decode('${base64}');\n${'start(wasm);\n'.repeat(9)}`;
  expect(textOf({ path: 'a.js' }, script)).toEqual({ text: script.replace(base64, note) });
  const { privateKey } = generateKeyPairSync('rsa', { modulusLength: 4096 });
  const pem = privateKey.export({ type: 'pkcs8', format: 'pem' });
  const key = JSON.stringify({ key: pem });
  expect(withoutBase64(key)).not.toBe(key);
  expect(textOf({ path: 'a.json' }, key)).toMatchObject({ reason: 'secret' });
});
