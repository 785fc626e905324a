/** Bytes that are not UTF-8: what is read as text, in which encoding, and what is not. */
import { randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { brotliCompressSync, deflateRawSync, deflateSync, gzipSync } from 'node:zlib';
import { describe, expect, it } from 'vitest';
import { decodeText, namedEncodings, shownTexts } from '../../../server/workspace/encoding';
import { onPlatform } from '../platform/onPlatform';
import { root } from '../reference';

const unknown = { reason: 'invalid-utf8' };
const latin1 = (text: string) => Buffer.from(text, 'latin1');

/** The platform decodes these encodings, and encodes none: its decoder, turned round. */
function encoder(label: string): (text: string) => Buffer {
  const decoder = new TextDecoder(label);
  const bytesOf = new Map<string, number[]>();
  const learn = (...bytes: number[]) => {
    const text = decoder.decode(Uint8Array.from(bytes));
    if ([...text].length === 1 && !bytesOf.has(text)) bytesOf.set(text, bytes);
  };
  for (let byte = 0; byte < 256; byte++) learn(byte);
  for (let lead = 0x81; lead < 0xff; lead++) for (let trail = 0x40; trail < 0xff; trail++) learn(lead, trail);
  return (text) => Buffer.from([...text].flatMap((character) => bytesOf.get(character) ?? []));
}

/** What people wrote in a language: messages of the TypeScript compiler, as comments of code. */
function commented(language: string): string[] {
  const file = path.join(root, 'node_modules/typescript/lib', language, 'diagnosticMessages.generated.json');
  const messages = Object.values(JSON.parse(readFileSync(file, 'utf8')) as Record<string, string>);
  const foreign = messages.filter((message) => /[^\0-\x7f]/.test(message));
  const code = readFileSync(path.join(root, 'native/base/thread_pool.cpp'), 'utf8').split('\n').slice(0, 100);
  return Array.from({ length: 50 }, (_, i) =>
    code.flatMap((line, n) => (n % 10 === 7 ? [`// ${foreign[37 * i + n]}`, line] : [line])).join('\n'),
  );
}

describe('decodeText', () => {
  it('reads code with a few letters of Western languages as windows-1252', () => {
    for (const text of [
      '// Größe des Puffers\nint size = 4;\n',
      '/* L\xe9gende : \xab\xa0d\xe9j\xe0 vu\xa0\xbb, \xe0 5\xb0 */\n',
      '# \xa9 1998 J. M\xfcller\n',
      "$a['\xe9']; // \xb15 \xb5s\n",
      'program p;\nbegin { fa\xe7ade }\nend.\n\x1a',
    ])
      expect(decodeText(latin1(text))).toEqual({ text });
    // Bytes 80 to 9F: what Latin-1 has not.
    const bytes = Buffer.from('// It\x92s 5 \x80 \x96 \x93quoted\x94, \x8cuvre\x85\r\n', 'latin1');
    expect(decodeText(bytes)).toEqual({ text: '// It’s 5 € – “quoted”, Œuvre…\n' });
  });

  it.each(['de', 'es', 'fr', 'it', 'pt-br'])('knows windows-1252 in messages in %s', (language) => {
    // Where its own decoder is Latin-1's, that of windows-1254 has its quotes and dashes.
    const quotes = encoder('windows-1254');
    const encode = (text: string) =>
      Buffer.concat([...text].map((character) => (character <= 'ÿ' ? latin1(character) : quotes(character))));
    for (const text of commented(language)) {
      const bytes = encode(text);
      const decoded = decodeText(bytes);
      expect(decoded).toHaveProperty('text');
      expect('text' in decoded && encode(decoded.text)).toEqual(bytes);
    }
  });

  it.each([
    ['ru', 'windows-1251'],
    ['ru', 'koi8-r'],
    ['ja', 'shift_jis'],
    ['ja', 'euc-jp'],
    ['ko', 'euc-kr'],
    ['zh-cn', 'gbk'],
    ['zh-tw', 'big5'],
  ])(
    'takes messages in %s, in %s, for nothing else, and reads them where they are named',
    (language, name) => {
      const encode = encoder(name);
      for (const text of commented(language)) {
        const bytes = encode(text);
        expect(decodeText(bytes)).toEqual(unknown);
        expect(decodeText(bytes, name)).toEqual({ text: new TextDecoder(name).decode(bytes) });
      }
    },
  );

  it('takes no binary file for text, with or without a NUL near its beginning', () => {
    const text = readFileSync(path.join(root, 'README.md'));
    const png = readFileSync(path.join(root, 'media/screenshots/answer.png'));
    const binaries = [
      png,
      png.subarray(0x1000),
      readFileSync(path.join(root, 'node_modules/tiktoken/tiktoken_bg.wasm')),
      readFileSync(process.execPath).subarray(0, 1 << 20),
      gzipSync(text),
      gzipSync('x'),
      deflateSync(text),
      deflateRawSync(text),
      brotliCompressSync(text),
      Buffer.concat([
        latin1('%PDF-1.4\n%\xe2\xe3\xcf\xd3\n5 0 obj <</Filter/FlateDecode>>\nstream\n'),
        deflateSync(text),
      ]),
      randomBytes(1 << 16),
      randomBytes(1 << 16).filter((byte) => byte !== 0),
      // A few bytes, of which none is a control character.
      Buffer.from([0xa5, 0xe1, 0x61, 0xc8, 0x3b]),
    ];
    for (const bytes of binaries) {
      expect(decodeText(bytes)).not.toHaveProperty('text');
      if (bytes.length > 100) expect(decodeText(bytes, 'windows-1251')).toEqual({ reason: 'binary' });
    }
  });

  it('takes nothing for windows-1252 that says nothing there, or is DOS text', () => {
    expect(decodeText(latin1('a \x81'))).toEqual(unknown);
    // `d\u00e9finir la cha\u00eene \u00e0 r\u00e9p\u00e9ter`, in cp850.
    expect(
      decodeText(latin1('// d\x82finir la cha\x8cne \x85 r\x82p\x82ter, tout \x85 la fin du fichier\n')),
    ).toEqual(unknown);
    const alphabet = "$a = '\xc0\xc1\xc2\xc3\xc4\xc5\xc6\xc7\xc8\xc9\xca\xcb\xcc\xcd\xce\xcf';\n";
    expect(decodeText(latin1(alphabet))).toEqual(unknown);
  });

  it('reads UTF-8 as that, whatever is named, and says what is no text of what is named', () => {
    const text = '// Größe\n';
    expect(decodeText(Buffer.from(text), 'gbk')).toEqual({ text });
    expect(decodeText(latin1(text), 'iso88591')).toEqual({ text });
    expect(decodeText(Buffer.from([0x61, 0x81, 0x0a]), 'shiftjis')).toEqual({
      ...unknown,
      detail: 'not shiftjis either',
    });
    expect(decodeText(latin1(text), 'cp850')).toEqual({
      ...unknown,
      detail: 'cp850 is an encoding that cannot be read',
    });
  });

  it('knows the encodings of the editor by its names', () => {
    const names =
      'iso88591 iso88593 iso885915 macroman windows1256 iso88596 windows1257 iso88594 iso885914 windows1250 iso88592 ' +
      'windows1251 cp866 iso88595 koi8r koi8u iso885913 windows1253 iso88597 windows1255 iso88598 iso885910 windows1254 ' +
      'iso88599 windows1258 gbk gb18030 cp950 big5hkscs shiftjis eucjp euckr windows874 iso885911 koi8ru gb2312';
    for (const name of names.split(' ')) {
      const { detail } = decodeText(Buffer.from([0x61, 0xff, 0xff, 0xff, 0x0a]), name) as { detail?: string };
      expect(detail ?? 'none', name).not.toMatch(/cannot be read/);
    }
  });
});

it('finds what a file is said to be in: the first that fits counts', () => {
  const encodingOf = namedEncodings([
    { folder: '/r/old', encoding: 'gbk', endings: ['.pas', 'makefile'] },
    { folder: '/r/old', encoding: 'utf8', endings: ['.md'] },
    { folder: '/r/old', encoding: 'windows1251' },
    { folder: '/r', encoding: 'utf8' },
  ]);
  const names = ['/r/old/a/B.PAS', '/r/old/Makefile', '/r/old/a.md', '/r/old/a.c', '/r/older/a.c', '/s/a.c'];
  expect(names.map(encodingOf)).toEqual(['gbk', 'gbk', undefined, 'windows1251', undefined, undefined]);
  expect(namedEncodings([{ encoding: 'gbk' }])('/s/a.c')).toBe('gbk');
  expect(namedEncodings()('/s/a.c')).toBeUndefined();
});

it('goes by folders as Windows names them', async () => {
  const encodings = [
    { folder: 'c:\\Proj\\old', encoding: 'gbk' },
    // An editor writes a server's name as it was typed, a URI in small letters.
    { folder: '\\\\NAS\\share', encoding: 'windows1251' },
  ];
  const names = ['C:\\proj\\old\\a.c', 'C:\\proj\\older\\a.c', '\\\\nas\\share\\a.c'];
  const found = await onPlatform('win32', () => names.map(namedEncodings(encodings)));
  expect(found).toEqual(['gbk', undefined, 'windows1251']);
});

it('knows what an editor may show for bytes that nobody edited', () => {
  const bytes = latin1('caf\xe9\r\n');
  const shown = (...given: Parameters<typeof shownTexts>) => [...new Set(shownTexts(...given))];
  expect(shown(bytes)).toEqual(['café\n', 'caf\ufffd\n']);
  expect(shown(bytes, 'windows1251')).toEqual(['cafй\n', 'caf\ufffd\n']);
  expect(shown(Buffer.from('é\n'), 'windows1252')).toEqual(['é\n', 'Ã©\n']);
  expect(shown(latin1('\xc4\xe3\xba\xc3\n'))).toEqual([]);
});
