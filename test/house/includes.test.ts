/** The layers of the engine: who may include whom, read from the #include lines. */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { read, root, trackedFiles } from './project';

/** Folder of native/ -> the folders below it. Every folder may include itself. */
const below: Record<string, string[]> = {
  os: [],
  base: ['os'],
  model: ['os', 'base'],
  sparse: ['os', 'base'],
  backend: ['os', 'base', 'model', 'sparse'],
  cpu: ['os', 'base', 'model', 'sparse', 'backend'],
  cuda: ['os', 'base', 'model', 'sparse', 'backend'],
  cache: ['os', 'base', 'model', 'backend'],
  engine: ['os', 'base', 'model', 'backend', 'cpu', 'cuda', 'cache', 'sparse'],
  binding: ['os', 'base', 'model', 'backend', 'cache', 'engine'],
  tool: ['os', 'base', 'model', 'backend', 'cache', 'engine', 'cpu'],
};

/** What is wrong with the includes of one file of native/ or kernels/. */
function faults(path: string, text: string): string[] {
  const [top, folder] = path.split('/') as [string, string];
  const found: string[] = [];
  for (const [, open, target] of text.matchAll(/^\s*#\s*include\s*(["<])([^">]+)[">]/gm)) {
    const fault = (why: string) => found.push(`${path} includes ${target}: ${why}`);
    const first = target!.split('/')[0]!;
    if (/(^|\/)(napi|node_api|js_native_api|uv)\.h$/.test(target!) && folder !== 'binding') {
      fault('only binding/ knows Node');
    } else if (open === '"' && target!.includes('..')) {
      fault('paths start at native/ or kernels/');
    } else if (top === 'kernels') {
      if (first in below) fault('kernels know nothing of the engine');
    } else if (first === 'kernels') {
      if (folder !== 'cuda' || !target!.startsWith('kernels/api/'))
        fault('only cuda/ sees kernels, by kernels/api');
    } else if (open === '"' && target!.includes('/') && first !== folder) {
      if (!(first in below)) fault('not a folder of native/');
      else if (!below[folder]?.includes(first)) fault(`${folder}/ lies below ${first}/`);
    }
  }
  return found;
}

describe('includes', () => {
  it('point down only', () => {
    const sources = trackedFiles().filter((path) => /^(native|kernels)\/.*\.(cpp|h|cu|cuh)$/.test(path));
    expect(sources.length).toBeGreaterThan(20);
    const present = sources.filter((path) => existsSync(join(root, path)));
    expect(present.flatMap((path) => faults(path, read(path)))).toEqual([]);
  });

  it('catch what must not be', () => {
    expect(faults('native/model/gguf.cpp', '#include "engine/engine.h"')).toHaveLength(1);
    expect(faults('native/engine/engine.cpp', '#include <napi.h>')).toHaveLength(1);
    expect(faults('native/base/error.h', '#include "../model/config.h"')).toHaveLength(1);
    expect(faults('native/engine/engine.h', '#include "kernels/api/attention.h"')).toHaveLength(1);
    expect(faults('kernels/gemm/gemm_sm90.cu', '#include "base/error.h"')).toHaveLength(1);
    expect(faults('native/binding/addon.cpp', '#include <napi.h>\n#include "engine/engine.h"\n')).toEqual([]);
    expect(faults('native/cuda/cuda_backend.cpp', '#include "kernels/api/attention.h"')).toEqual([]);
    expect(faults('native/cpu/linear.cpp', '#include "cpu/linear.h"\n#include <vector>')).toEqual([]);
  });
});
