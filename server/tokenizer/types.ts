/** Text to the loaded model's token ids and back. Built by tokenizer.ts from a model's vocabulary. */
export interface Tokenizer {
  readonly vocabularySize: number;
  /**
   * Encodes plain text: what looks like a special token in it is plain text too (injection-safe). Behind a special token some
   * vocabularies put a space first.
   */
  encode(text: string, behindSpecial?: boolean): Int32Array;
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

/** Bytes that tiktoken merges, and the ids that stand for them. */
export interface Rank {
  bytes: Uint8Array;
  ids: readonly number[];
}

export interface Vocabulary {
  /** What each token stands for in a text, by id; special tokens keep their text as UTF-8. */
  tokens: Uint8Array[];
  /** Text to id of tokens that plain text never gives. */
  special: ReadonlyMap<string, number>;
  /** Those of them that swallow the white space behind them. */
  swallowing: ReadonlySet<number>;
  /** Regular expression that splits text before merging. */
  pattern: string;
  /** The 256 bytes, then the first merged first. */
  ranks: Rank[];
  /** What becomes of a text first: its parts, normalised, that are split and merged each by itself. */
  prepare: (text: string) => Iterable<string>;
  /** Where a space is put that the text does not have, and taken off an answer. */
  firstSpace: 'nowhere' | 'text' | 'behind-specials-too';
  stopTokens: number[];
  bosToken?: number;
  chatTemplate?: string;
}
