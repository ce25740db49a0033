/**
 * What validators have in common: version 1 of Standard Schema, by which zod, valibot, arktype and others can be used without being imported.
 *
 * @module
 */

/** A validator: takes `Input`, gives `Output`. */
export interface StandardSchema<Input = unknown, Output = Input> {
  /** What the specification asks for. */
  readonly "~standard": StandardSchemaProps<Input, Output>;
}

/** What stands behind `~standard`. */
export interface StandardSchemaProps<Input = unknown, Output = Input> {
  /** Of the specification. */
  readonly version: 1;
  /** Who made the validator. */
  readonly vendor: string;
  /** Looks at a value, and gives what becomes of it, or what is wrong. */
  readonly validate: (
    value: unknown,
  ) => StandardResult<Output> | Promise<StandardResult<Output>>;
  /** For the compiler alone: nothing has to be there. */
  readonly types?: { readonly input: Input; readonly output: Output } | undefined;
}

/** What became of a value: with `issues` nothing. */
export type StandardResult<Output> =
  | { readonly value: Output; readonly issues?: undefined }
  | { readonly issues: readonly StandardIssue[] };

/** Something that is wrong with a value. */
export interface StandardIssue {
  /** What, for people; some validators name the value in it. */
  readonly message: string;
  /** Where: none for the value as a whole. */
  readonly path?: readonly (PropertyKey | { readonly key: PropertyKey })[] | undefined;
}
