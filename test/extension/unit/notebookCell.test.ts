import { expect, it } from 'vitest';
import { cellAtLine } from '../../../extension/notebookCell';

const cell = (source: string[]) => ({ cell_type: 'code', metadata: { tags: [['{']] }, outputs: [], source });
const notebook = {
  metadata: { cells: [{}, {}] },
  cells: [cell(['a = "{[\\"\n', 'b = 1']), cell([]), cell(['c = 2'])],
  nbformat: 4,
};

it('finds the cell of a line, however the file is laid out', () => {
  for (const indent of [1, 4, '\t']) {
    const text = JSON.stringify(notebook, null, indent);
    const lines = text.split('\n');
    const at = (part: string) => cellAtLine(text, 1 + lines.findIndex((line) => line.includes(part)));
    expect(['a = ', 'b = 1', 'c = 2', '"nbformat"', '"metadata"'].map(at)).toEqual([
      0,
      0,
      2,
      undefined,
      undefined,
    ]);
    const starts = lines.flatMap((line, i) =>
      line.includes('"cell_type"') ? [cellAtLine(text, i + 1)] : [],
    );
    expect(starts).toEqual([0, 1, 2]);
  }
  // All in one line is no place.
  expect(cellAtLine(JSON.stringify(notebook), 1)).toBeUndefined();
});

it('finds none in what is no notebook, and those before where one is broken', () => {
  for (const text of ['', '{', '"cells', '[[[[', '}}}}]]', '{"cells": 5}', 'x = 1\ny = 2\n'])
    expect(cellAtLine(text, 2)).toBeUndefined();
  const text = JSON.stringify(notebook, null, 1);
  const line = text.slice(0, text.indexOf('c = 2')).split('\n').length;
  expect(cellAtLine(text.slice(0, text.indexOf('c = 2') + 4), line)).toBe(2);
});
