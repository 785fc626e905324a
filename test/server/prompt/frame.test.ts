/** The text around the files: the built-in model knows it byte for byte, and a kept prompt is gone on with only where it is the same. */
import { expect, it } from 'vitest';
import {
  deletedFile,
  fileText,
  frameFingerprint,
  head,
  laterVersion,
  tail,
} from '../../../server/prompt/frame';

it('begins with the instructions, the name and the folders by name, their files in the order of the prompt', () => {
  const paths = ['src/b.py', 'README.md', 'src/net/io.py', 'src/a.py', 'a.py', '.github/ci.yml'];
  expect(head('orders', paths)).toBe(
    'You answer questions about the repository below. Base every answer on its files and name where you found it as ' +
      '[path#symbol]. If the files do not answer the question, say so.\n\n' +
      '<repository name="orders">\n<tree>\n./: README.md a.py\n.github/: ci.yml\nsrc/: b.py a.py\nsrc/net/: io.py\n</tree>\n',
  );
});

it('keeps its frame whatever a folder is called', () => {
  const [opening] = head('a"b<c>\n\u0085d é', []).split('\n').slice(2);
  expect(opening).toBe('<repository name="a_b_c___d é">');
});

it('frames a file, its later version and its end', () => {
  expect(fileText('a.py', '\n  x = 1 \n\n')).toBe('<file path="a.py">\n\n  x = 1\n</file>\n');
  expect(laterVersion('a.py', '\n  x = 2 \n\n', 2)).toBe(
    '<file path="a.py" version="2">\n\n  x = 2\n</file>\n',
  );
  expect(deletedFile('a.py')).toBe('<deleted path="a.py"/>\n');
  expect(tail).toBe('</repository>');
});

it('is told apart from any other by its fingerprint', () => {
  // Of the texts above: where one of them changes on purpose, so does this.
  expect(frameFingerprint()).toBe('1c866414cd4b9498986abcdb7625c5c7296fe33b5808b58dfe4a537c06534035');
});
