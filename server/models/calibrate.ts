/** Calibrates a model on a repository or a text: which keys each of its heads may leave out, by this device's own times. */
import { readFile } from 'node:fs/promises';
import path from 'node:path';
import type { CalibratedProfile, CalibratedTarget } from '../engine/engine';
import { LongviewError } from '../errors';
import { calibrationText, type CalibrationSource } from '../prompt/calibrationText';
import { Packer } from '../prompt/pack';
import { scanWorkspace, type Root, type ScanOptions } from '../workspace/scan';
import type { OpenModel } from './openModel';

export interface CalibrateRequest {
  /** The text: files of folders as a prompt packs them, or one file. */
  source: { roots: readonly Root[]; scan?: ScanOptions } | { file: string };
  /** Tokens of the text at most; default: 32,768, or what the window holds. */
  tokens?: number;
  /** Where the profiles go. */
  folder: string;
  /** Default: all three. */
  targets?: readonly CalibratedTarget[];
  density?: number;
  signal?: AbortSignal;
  onProgress?: (progress: { done: number; total: number }) => void;
}

const defaultTokens = 32_768;

/** The model must be open for sparse reading, and its engine have room for the text. Cancelled, it goes on the next time. */
export async function calibrate(model: OpenModel, request: CalibrateRequest): Promise<CalibratedProfile[]> {
  const { folder, targets = ['balanced', 'fast', 'minference'], density, signal, onProgress } = request;
  const tokens = Math.min(request.tokens ?? defaultTokens, model.engine.window);
  const text = calibrationText(model, await readSource(model, request, tokens), tokens);
  // Short contexts are read densely: what heads do early in a text says little.
  const fromToken = text.length >> 1;
  return model.engine.calibrate(text, { folder, targets, density, fromToken, signal, onProgress });
}

async function readSource(
  { tokenizer }: OpenModel,
  { source, signal }: CalibrateRequest,
  budget: number,
): Promise<CalibrationSource> {
  if ('file' in source) {
    const text = await readFile(source.file, 'utf8').catch((cause: unknown) => {
      throw new LongviewError('file_not_found', `${source.file} could not be read.`, { cause });
    });
    return { name: path.basename(source.file), files: [{ path: path.basename(source.file), text }] };
  }
  const name = source.roots.map((root) => root.name).join(' + ');
  const scan = await scanWorkspace(source.roots, { ...source.scan, signal });
  const { files } = await new Packer({ name, tokenizer, budget }).pack(scan, { signal });
  return { name, files };
}
