/**
 * What handlers give and throw, which may be anything.
 *
 * @module
 */
import type { HandlerAnswer } from "./context.ts";
import { ServerMsg } from "./message.ts";

const ENCODER = new TextEncoder();
const EMPTY = new Uint8Array();

/** Whether it comes later. */
export function isThenable(value: unknown): value is PromiseLike<HandlerAnswer> {
  return typeof (value as { then?: unknown } | null | undefined)?.then === "function";
}

/** The bytes of an answer. @throws {TypeError} if it is none */
export function dataOf(answer: HandlerAnswer | null): Uint8Array {
  const data = answer instanceof ServerMsg ? answer.data : answer;
  if (data instanceof Uint8Array) return data;
  if (data === undefined || data === null) return EMPTY;
  if (typeof data === "string") return ENCODER.encode(data);
  throw new TypeError(`the answer is of the type ${typeof data}, expected bytes or a text`);
}

/** What was thrown may be anything. */
export function textOf(error: unknown): string {
  try {
    return error instanceof Error ? String(error.message) : String(error);
  } catch {
    return "something that has no text";
  }
}
