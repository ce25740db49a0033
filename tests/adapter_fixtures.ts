import { readFileSync } from "node:fs";

const TLS = new URL("./fixtures/tls/", import.meta.url);

/** A PEM file of tests/fixtures/tls: throw-away keys, valid for 100 years. */
export function pem(name: string): string {
  return readFileSync(new URL(name, TLS), "utf8");
}
