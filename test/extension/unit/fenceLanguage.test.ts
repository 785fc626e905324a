import { expect, it } from 'vitest';
import { editorLanguage, fenceLanguage } from '../../../extension/chat/fenceLanguage';
import { highlight } from '../../../extension/chat/highlight';
import { renderBlocks } from '../../../extension/chat/markdown';

it.each([
  ['py', 'python'],
  ['Python', 'python'],
  ['c', 'c'],
  ['c++', 'cpp'],
  ['C#', 'csharp'],
  ['tsx', 'typescriptreact'],
  ['objective-c', 'objective-c'],
  ['sh', 'shellscript'],
  ['', undefined],
  ['../x', undefined],
  ['constructor', 'constructor'],
])('behind a fence, %s is found whole, and the editor calls it %s', (language, expected) => {
  const [block] = renderBlocks(`\`\`\`${language} title="x"\nint x;\n\`\`\``, []);
  const className = /class="([^"]*)"/.exec(block!)?.[1] ?? '';
  const found = fenceLanguage(className);
  if (language !== '') expect(found).toBe(language);
  expect(editorLanguage(language)).toBe(expected);
});

it('colours C++ as C++, and C# as C#', () => {
  expect(highlight('class A { public: virtual void f(); };', 'c++')).toMatch(/keyword">virtual/);
  expect(highlight('public override string F() => "";', 'c#')).toMatch(/keyword">override/);
});
