/** The recorded sessions of tests/fixtures/ovpn: what OpenVPN sent on one connection each, and what its manager did. */
import { readdirSync, readFileSync } from "node:fs";
import { parseRecording, type Recording as Dialogue } from "@trunkline/sockets/ovpn/testing";

const FOLDER = new URL("./fixtures/ovpn/", import.meta.url);

export interface Recording {
  readonly name: string;
  /** Every byte that OpenVPN sent. */
  readonly bytes: Uint8Array;
}

export function recordings(): Recording[] {
  const files = readdirSync(FOLDER).sort();
  const received = files.filter((file) => /^[^.]+\.txt$/.test(file));
  return received.map((file) => ({ name: file.slice(0, -".txt".length), bytes: read(file) }));
}

/** Both sides of a session, with their timing. */
export function readDialogue(name: string): Dialogue {
  return parseRecording({
    received: read(`${name}.txt`),
    sent: read(`${name}.commands.txt`),
    timing: new TextDecoder().decode(read(`${name}.timing.jsonl`)),
  });
}

function read(file: string): Uint8Array {
  return new Uint8Array(readFileSync(new URL(file, FOLDER)));
}
