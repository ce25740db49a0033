/**
 * What a server says that it has.
 *
 * @module
 */
import { UdsError } from "./errors.ts";

/** How many messages a call has: one or many, in each direction. */
export type MethodKind = "unary" | "client-stream" | "server-stream" | "duplex";

/** What goes in one direction. */
export interface ValueDescription {
  /** The name of the codec: `json`, `bytes`, `text`, `empty` or another. */
  readonly codec: string;
  /** JSON Schema (draft 2020-12) of what is sent, where the validator can tell. */
  readonly schema?: Readonly<Record<string, unknown>> | undefined;
}

/** What is known of a handler. */
export interface MethodDescription {
  /** The name of its service. */
  readonly service?: string | undefined;
  /** How many messages a call has. */
  readonly kind: MethodKind;
  /** What it takes. */
  readonly request: ValueDescription;
  /** What it gives. */
  readonly response: ValueDescription;
}

/** A handler. */
export interface HandlerDescription extends MethodDescription {
  /** By which it is called. */
  readonly name: string;
}

/** All that a server, or a service, has. */
export interface ServiceDescription {
  /** By their names. */
  readonly handlers: readonly HandlerDescription[];
}

/** The reserved handler that tells it. */
export const DESCRIBE = "uds.describe";

/** How large a description may be, in bytes. */
export const MAX_DESCRIPTION_BYTES: number = 4 * 1024 * 1024;

/** All kinds. */
export const METHOD_KINDS: readonly MethodKind[] = [
  "unary",
  "client-stream",
  "server-stream",
  "duplex",
];

const ENCODER = new TextEncoder();
const DECODER = new TextDecoder("utf-8", { fatal: true });
const BYTES: ValueDescription = { codec: "bytes" };

/** That of a handler that was registered without one. */
export function plainDescription(streams: boolean): MethodDescription {
  return { kind: streams ? "duplex" : "unary", request: BYTES, response: BYTES };
}

/** @throws {UdsError} `too-large` */
export function encodeDescription({ handlers }: ServiceDescription): Uint8Array {
  const data = ENCODER.encode(JSON.stringify({ handlers }));
  if (data.length <= MAX_DESCRIPTION_BYTES) return data;
  const text = `a description of ${data.length} bytes, and at most ${MAX_DESCRIPTION_BYTES} go`;
  throw new UdsError("too-large", text);
}

/** @throws {UdsError} `too-large`, or `protocol` if it is none */
export function decodeDescription(data: Uint8Array): ServiceDescription {
  if (data.length > MAX_DESCRIPTION_BYTES) {
    const text = `a description of ${data.length} bytes, expected at most ${MAX_DESCRIPTION_BYTES}`;
    throw new UdsError("too-large", text);
  }
  let value: unknown;
  try {
    value = JSON.parse(DECODER.decode(data));
  } catch {
    throw new UdsError("protocol", "a description that is no JSON");
  }
  const { handlers } = object(value, "it");
  if (!Array.isArray(handlers)) throw refused("handlers");
  return { handlers: handlers.map(handlerOf) };
}

/** What is not known is left out: a later version may say more. */
function handlerOf(value: unknown): HandlerDescription {
  const { name, service, kind, request, response } = object(value, "a handler");
  if (typeof name !== "string") throw refused("a name");
  if (service !== undefined && typeof service !== "string") throw refused("a service");
  const known = METHOD_KINDS.find((it) => it === kind);
  if (known === undefined) throw refused("a kind");
  const values = { request: valueOf(request), response: valueOf(response) };
  return { name, ...(service === undefined ? {} : { service }), kind: known, ...values };
}

function valueOf(value: unknown): ValueDescription {
  const { codec, schema } = object(value, "a value");
  if (typeof codec !== "string") throw refused("a codec");
  return schema === undefined ? { codec } : { codec, schema: object(schema, "a schema") };
}

function object(value: unknown, what: string): Readonly<Record<string, unknown>> {
  if (typeof value !== "object" || value === null || Array.isArray(value)) throw refused(what);
  return value as Readonly<Record<string, unknown>>;
}

function refused(what: string): UdsError {
  return new UdsError("protocol", `a description in which ${what} is not as it should be`);
}
