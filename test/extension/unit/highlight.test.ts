/** Which code in an answer is coloured. */
import { describe, expect, it } from 'vitest';
import { highlight } from '../../../extension/chat/highlight';

describe('the colours of code', () => {
  it('are those of its language, and its text stays text', () => {
    expect(highlight('return "<b>";', 'java')).toBe(
      '<span class="hljs-keyword">return</span> <span class="hljs-string">&quot;&lt;b&gt;&quot;</span>;',
    );
    expect(highlight('x', 'no language')).toBeUndefined();
  });

  it('are given to whole files, and to nothing that would keep the panel busy for minutes', () => {
    expect(highlight('int x = 1;\n'.repeat(900), 'java')).toContain('hljs-type');
    expect(highlight('$'.repeat(200_000), 'java')).toBeUndefined();
  });
});
