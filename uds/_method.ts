/**
 * The methods of a service, checked, with what is inferred of them at run time.
 *
 * @module
 */
import { requireChoice } from "../adapters/limits.ts";
import { type Format, formatOf } from "./_format.ts";
import { METHOD_KINDS, type MethodKind } from "./description.ts";
import type { Service } from "./service.ts";

/** A method. */
export interface Method {
  /** In the service. */
  readonly name: string;
  /** On the wire. */
  readonly handler: string;
  readonly kind: MethodKind;
  readonly request: Format;
  readonly response: Format;
}

/** The handlers of these names are the package's own. */
const RESERVED = "uds.";

/** @throws {TypeError} see {@linkcode defineService} */
export function methodsOf({ name: service, methods }: Service): Method[] {
  if (service !== undefined) checkName(service, "a service");
  return Object.entries(methods).map(([name, { kind = "unary", request, response }]) => {
    checkName(name, "a method");
    // With `then` a client would be taken for a promise; the others its handlers would seem to have.
    if (name === "then" || name in {}) throw unusable(name, "a method");
    const handler = service === undefined ? name : `${service}.${name}`;
    if (handler.startsWith(RESERVED)) throw unusable(handler, "a handler");
    requireChoice(`kind of ${handler}`, kind, METHOD_KINDS);
    return {
      name,
      handler,
      kind,
      request: formatOf(request, `request of ${handler}`),
      response: formatOf(response, `response of ${handler}`),
    };
  });
}

function checkName(name: string, what: string): void {
  if (typeof name !== "string" || name === "" || !name.isWellFormed()) throw unusable(name, what);
}

function unusable(name: unknown, what: string): TypeError {
  return new TypeError(`the name ${JSON.stringify(name)} cannot be that of ${what}`);
}
