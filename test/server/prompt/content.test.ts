/** Notebooks: what people wrote in them is read, however large their pictures are. */
import { randomBytes } from 'node:crypto';
import { truncateSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import { checkCitations } from '../../../server/answers/citations';
import { nameKey } from '../../../server/platform/fileNames';
import { Packer } from '../../../server/prompt/pack';
import { scanFolder, type ScanOptions } from '../../../server/workspace/scan';
import { onPlatform } from '../platform/onPlatform';
import { repository } from '../workspace/repository';
import { tokenizer } from './packed';

async function pack(folder: string, { budget = 60_000, ...options }: ScanOptions & { budget?: number } = {}) {
  return new Packer({ name: 'r', tokenizer, budget }).pack(await scanFolder(folder, options));
}

/** As Jupyter writes it: JSON with an indent of one space, lines of text as strings, a picture as one. */
function notebook(cells: number, pictureBytes: number): string {
  const lines = (text: string) => text.split(/(?<=\n)/);
  const cell = (i: number) => [
    { cell_type: 'markdown', metadata: {}, source: lines(`## Step ${i}\nWhat is *measured*.`) },
    {
      cell_type: 'code',
      execution_count: i,
      metadata: {},
      outputs: [
        { name: 'stdout', output_type: 'stream', text: lines(`loss ${i}\nrate 0.1\n`) },
        {
          data: {
            'image/png': `${randomBytes(pictureBytes).toString('base64')}\n`,
            'text/plain': ['<Figure size 640x480 with 1 Axes>'],
          },
          metadata: {},
          output_type: 'display_data',
        },
      ],
      source: lines(`def fit_step_${i}(rate):\n    return rate * ${i}\n`),
    },
  ];
  const content = {
    cells: Array.from({ length: cells }, (_, i) => cell(i)).flat(),
    metadata: {},
    nbformat: 4,
  };
  return `${JSON.stringify(content, null, 1)}\n`;
}

describe('a notebook', () => {
  it('is read but for its pictures, line by line, and cited by its lines', async () => {
    const whole = notebook(20, 120_000);
    expect(whole.length).toBeGreaterThan(3 << 20);
    const folder = repository([['study.ipynb', whole]]);
    const { files, skipped } = await pack(folder);
    expect(skipped).toEqual([{ path: 'study.ipynb', reason: 'base64', detail: '3,140 KiB' }]);
    const { text } = files[0]!;
    const kept = text.split('\n');
    whole.split('\n').forEach((line, i) => {
      if (line.includes('"image/png"'))
        expect(kept[i]).toBe('      "image/png": "[157 KiB of base64 left out]\\n",');
      else expect(kept[i]).toBe(line);
    });
    const { citations } = checkCitations('It is `fit_step_7` [study.ipynb#fit_step_7].', files);
    const line = 1 + whole.split('\n').findIndex((line) => line.includes('def fit_step_7('));
    expect(citations).toMatchObject([{ span: { startLine: line, endLine: line } }]);
  });

  it('is left out where its text is too large, or the file is, whatever is in it', async () => {
    const folder = repository([
      ['a.py', 'x = 1\n'],
      ['text.ipynb', notebook(60, 2000)],
      ['broken.ipynb', `${notebook(1, 3000).slice(0, -200)}, {"cells": [[[`],
      ['huge.ipynb', '{'],
    ]);
    truncateSync(path.join(folder, 'huge.ipynb'), 2 ** 30);
    const { files, skipped } = await pack(folder, { maxFileBytes: 8192 });
    expect(files.map((file) => file.path)).toEqual(['a.py', 'broken.ipynb']);
    expect(skipped).toEqual([
      { path: 'huge.ipynb', reason: 'too-large', detail: '1048576 KiB' },
      {
        path: 'text.ipynb',
        reason: 'too-large',
        detail: expect.stringMatching(/^\d+ KiB without base64$/) as string,
      },
      { path: 'broken.ipynb', reason: 'base64', detail: '4 KiB' },
    ]);
    // So is what an editor holds of it.
    const scan = await scanFolder(folder, { maxFileBytes: 8192 });
    const packer = new Packer({ name: 'r', tokenizer, budget: 60_000 });
    const buffers = new Map([[nameKey(path.join(folder, 'text.ipynb')), notebook(1, 3000)]]);
    const edited = await packer.pack(scan, { buffers });
    expect(edited.files.map((file) => file.path)).toContain('text.ipynb');
  });

  it('weighs what its text does where not all fits', async () => {
    const folder = repository([
      ['data.py', 'value = compute(value)\n'.repeat(400)],
      ['large.py', 'value = compute(value)\n'.repeat(800)],
      ['study.ipynb', notebook(2, 200_000)],
    ]);
    const all = await pack(folder);
    const large = all.files.find((file) => file.path === 'large.py')!;
    const some = await pack(folder, { budget: all.tokens.length - large.tokens + 50 });
    expect(some.files.map((file) => file.path).sort()).toEqual(['data.py', 'study.ipynb']);
  });

  it('costs no edit where only its pictures have changed', async () => {
    const folder = repository([['study.ipynb', notebook(2, 120_000)]]);
    const packer = new Packer({ name: 'r', tokenizer, budget: 60_000 });
    const before = await packer.pack(await scanFolder(folder));
    writeFileSync(path.join(folder, 'study.ipynb'), notebook(2, 120_050));
    expect((await packer.pack(await scanFolder(folder))).tokens).toEqual(before.tokens);
  });
});

it('takes what an editor holds of a file, also where that spells the path otherwise and the system does not care', async () => {
  const folder = repository([['Src/App.ts', 'const saved = 1;\n']]);
  const packer = new Packer({ name: 'r', tokenizer, budget: 60_000 });
  const texts = async (buffers: Map<string, string | undefined>) => {
    const { files } = await packer.pack(await scanFolder(folder), { buffers });
    return files.map((file) => file.text);
  };
  await onPlatform('darwin', async () => {
    const opened = nameKey(path.join(folder, 'src/APP.ts'));
    expect(await texts(new Map([[opened, 'const unsaved = 2;\n']]))).toEqual(['const unsaved = 2;\n']);
    // It stays as it is packed.
    expect(await texts(new Map([[opened, undefined]]))).toEqual(['const unsaved = 2;\n']);
    expect(await texts(new Map())).toEqual(['const saved = 1;\n']);
  });
});
