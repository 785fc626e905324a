import { describe, expect, it } from 'vitest';
import { identifierAt } from '../../../server/answers/hover';

describe('identifierAt', () => {
  it.each([
    ['def load_config(path):', 6, 'load_config'],
    ['def überprüfe(wert):', 5, 'überprüfe'],
    ['def überprüfe(wert):', 8, 'überprüfe'],
    ['class 处理器:', 7, '处理器'],
    ['a $store', 3, '$store'],
    ['x = 1234', 6, undefined],
    ['if x:', 3, undefined],
  ])('%s at %i: %s', (line, character, expected) => {
    expect(identifierAt(`\n${line}\n`, 1, character)).toBe(expected);
  });
});
