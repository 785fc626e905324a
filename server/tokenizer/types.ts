/** Text to the loaded model's token ids and back. Built by tokenizer.ts from a model's vocabulary. */
export interface Tokenizer {
  readonly vocabularySize: number;
  /** Encodes plain text: what looks like a special token in it is plain text too (injection-safe). */
  encode(text: string): Int32Array;
  /** Encodes a rendered chat template: special tokens are parsed. Never give it repository content. */
  encodeWithSpecials(text: string): Int32Array;
  decode(tokens: ArrayLike<number>): string;
  /** A stateful decoder that holds bytes back until they are whole UTF-8 characters. */
  decoder(): StreamDecoder;
  /** Ids that end an answer (eos, eot, im_end...). */
  readonly stopTokens: readonly number[];
  /**
   * What a chat template calls bos_token. Only the template says whether it stands anywhere: `add_bos_token` is about texts
   * without one.
   */
  readonly bosToken?: number;
  /** The model's own Jinja chat template; undefined: ChatML. */
  readonly chatTemplate?: string;
  /** Text of a special token (for the template's bos_token / eos_token). */
  specialText(id: number): string | undefined;
  dispose(): void;
}

export interface StreamDecoder {
  /** Text that is complete with this token; may be empty. */
  push(token: number): string;
  /** What is left, with U+FFFD for incomplete bytes. */
  end(): string;
}
