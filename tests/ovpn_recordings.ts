/** The recorded sessions of tests/fixtures/ovpn: what OpenVPN sent on one connection each. */
import { readdirSync, readFileSync } from "node:fs";

const FOLDER = new URL("./fixtures/ovpn/", import.meta.url);

export interface Recording {
  readonly name: string;
  /** Every byte that OpenVPN sent. */
  readonly bytes: Uint8Array;
}

export function recordings(): Recording[] {
  const files = readdirSync(FOLDER).sort();
  const received = files.filter((file) => /^[^.]+\.txt$/.test(file));
  return received.map((file) => ({
    name: file.slice(0, -".txt".length),
    bytes: new Uint8Array(readFileSync(new URL(file, FOLDER))),
  }));
}
