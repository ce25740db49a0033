/**
 * What a method takes or gives: by a codec, or by JSON and a validator.
 *
 * @module
 */
import { type AnyCodec, type Codec, json } from "./codec.ts";
import type { ValueDescription } from "./description.ts";
import type { StandardIssue, StandardSchema } from "./standard_schema.ts";

/** Makes an error of why a message was refused. */
export type Refuse = (
  why: string,
  options?: { readonly cause?: unknown; readonly issues?: readonly StandardIssue[] },
) => Error;

/** One direction of a method. */
export interface Format {
  readonly codec: Codec<unknown>;
  readonly schema: StandardSchema | undefined;
}

/** What is told of issues: a hostile value could have as many as it has bytes, each as deep and with names as long. */
const MAX_ISSUES = 16;
const MAX_PATH = 8;
const MAX_ISSUE_LENGTH = 200;
const ENCODER = new TextEncoder();

/** @throws {TypeError} if it is neither */
export function formatOf(value: AnyCodec, what: string): Format {
  // First: validators have methods of their own that are called as those of a codec.
  if (isSchema(value)) return { codec: json(), schema: value };
  const { name, encode, decode } = (value ?? {}) as Partial<Codec<unknown>>;
  if (typeof name !== "string" || typeof encode !== "function" || typeof decode !== "function") {
    throw new TypeError(`${what} is neither a codec nor a Standard Schema of version 1`);
  }
  return { codec: value as Codec<unknown>, schema: undefined };
}

/** @throws {TypeError} if the codec gives no bytes, and whatever it throws */
export function encodeValue({ codec }: Format, value: unknown): Uint8Array {
  const data: unknown = codec.encode(value);
  if (data instanceof Uint8Array) return data;
  throw new TypeError(`the codec ${codec.name} gave no Uint8Array`);
}

/** Reads and validates it. What a validator throws is no refusal, but an error of it. */
export async function decodeValue(
  { codec, schema }: Format,
  data: Uint8Array,
  refuse: Refuse,
): Promise<unknown> {
  let value: unknown;
  try {
    value = await codec.decode(data);
  } catch (cause) {
    throw refuse(`is no ${codec.name}`, { cause });
  }
  if (schema === undefined) return value;
  const result = await schema["~standard"].validate(value);
  if (result.issues === undefined) return result.value;
  throw refuse(`does not fit its schema ${places(result.issues)}`, { issues: result.issues });
}

/** The issues as JSON. */
export function encodeIssues(issues: readonly StandardIssue[]): Uint8Array {
  const plain = beginOf(issues, MAX_ISSUES, (issue) => ({
    message: issue.message.slice(0, MAX_ISSUE_LENGTH),
    path: pathOf(issue),
  }));
  return ENCODER.encode(JSON.stringify(plain));
}

/** For introspection. */
export function describeValue({ codec, schema }: Format): ValueDescription {
  const found = schema === undefined ? undefined : jsonSchemaOf(schema);
  return found === undefined ? { codec: codec.name } : { codec: codec.name, schema: found };
}

function isSchema(value: unknown): value is StandardSchema {
  // Arktype's are functions.
  if (value === null || typeof value !== "object" && typeof value !== "function") return false;
  const props = (value as Partial<StandardSchema>)["~standard"];
  return props?.version === 1 && typeof props.validate === "function";
}

/** Where the issues are, and not what is there: that may be a secret. */
function places(issues: readonly StandardIssue[]): string {
  const path = pathOf(issues[0] ?? { message: "" }).join(".").slice(0, MAX_ISSUE_LENGTH);
  const at = path === "" ? "as a whole" : `at ${JSON.stringify(path)}`;
  return issues.length > 1 ? `${at}, and ${issues.length - 1} more` : at;
}

function pathOf({ path = [] }: StandardIssue): (string | number)[] {
  return beginOf(path, MAX_PATH, (part) => {
    const key = typeof part === "object" ? part.key : part;
    return typeof key === "number" ? key : String(key).slice(0, MAX_ISSUE_LENGTH);
  });
}

/** Arktype's lists are arrays of its own, of which `slice` and `map` make no plain ones. */
function beginOf<T, U>(list: readonly T[], max: number, map: (value: T) => U): U[] {
  return Array.from({ length: Math.min(list.length, max) }, (_, i) => map(list[i]!));
}

/** By Standard JSON Schema, which not every validator has, nor every one of its schemas. */
function jsonSchemaOf(schema: StandardSchema): Readonly<Record<string, unknown>> | undefined {
  const { jsonSchema } = schema["~standard"] as {
    readonly jsonSchema?: { input?(options: { readonly target: string }): unknown };
  };
  try {
    // What is sent is the validator's input, in both directions. By way of JSON, in which it will be told.
    const found = JSON.parse(JSON.stringify(jsonSchema?.input?.({ target: "draft-2020-12" })));
    return typeof found === "object" && found !== null ? found : undefined;
  } catch {
    return undefined;
  }
}
