/** A question as it stands on the page. */
import { describe, expect, it } from 'vitest';
import { questionName, questionParts } from '../../../extension/chat/questionView';

describe('a question', () => {
  it('of one line is its heading', () => {
    expect(questionParts('Where is `a` defined?')).toEqual({ title: 'Where is `a` defined?', rest: [] });
  });

  it('has its pasted code as code, between what is said of it', () => {
    const question = 'What does this do?\nIt is old.\n\n```py\ndef a():\n\n    pass\n```\n\nAnd `b`?';
    expect(questionParts(question)).toEqual({
      title: 'What does this do?',
      rest: [
        { code: false, text: 'It is old.' },
        { code: true, text: 'def a():\n\n    pass' },
        { code: false, text: 'And `b`?' },
      ],
    });
  });

  it('may begin with code, and leave it open', () => {
    expect(questionParts('```\na\n```\nWhy?')).toEqual({
      title: '',
      rest: [
        { code: true, text: 'a' },
        { code: false, text: 'Why?' },
      ],
    });
    expect(questionParts('Why?\n```\na\nb')).toEqual({ title: 'Why?', rest: [{ code: true, text: 'a\nb' }] });
  });

  it('holds fences of other lengths as code', () => {
    expect(questionParts('Why?\n````md\n```\na\n```\n````').rest).toEqual([
      { code: true, text: '```\na\n```' },
    ]);
  });

  it('is named by its first line, shortened', () => {
    expect(questionName('Why?\n```\na\n```')).toBe('Question: Why?');
    expect(questionName('a'.repeat(500))).toHaveLength('Question: '.length + 121);
  });
});
