/** The one error type of the server: a stable code and a sentence that a user can act on. */

export type ErrorCode =
  // from the engine (native/base/error.h)
  | 'invalid_argument'
  | 'file_not_found'
  | 'file_truncated'
  | 'file_corrupt'
  | 'unknown_format'
  | 'unsupported_architecture'
  | 'unsupported_quantization'
  | 'out_of_memory'
  | 'window_exceeded'
  | 'cancelled'
  | 'device_lost'
  | 'disk_full'
  | 'cannot_write'
  | 'internal'
  // from the server
  | 'no_model'
  | 'no_addon'
  | 'unsupported_tokenizer'
  | 'no_workspace'
  | 'empty_workspace'
  | 'question_too_long'
  | 'settings_changed'
  | 'download_failed'
  | 'checksum_mismatch';

export class LongviewError extends Error {
  constructor(
    readonly code: ErrorCode,
    message: string,
    options?: { cause?: unknown },
  ) {
    super(message, options);
    this.name = 'LongviewError';
  }
}

/** Throws LongviewError `cancelled` when the signal is aborted. */
export function throwIfAborted(signal?: AbortSignal): void {
  if (signal?.aborted) throw new LongviewError('cancelled', 'Stopped.');
}
