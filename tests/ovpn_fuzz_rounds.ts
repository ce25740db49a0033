/** Every property that is fuzzed, for the tests and for `deno task fuzz`. */
import { Luck } from "./ovpn_fuzz.ts";
import {
  encodes,
  readsHistories,
  readsStatus,
  readsValues,
  shapesReplies,
} from "./ovpn_fuzz_replies.ts";
import { simulates, survives } from "./ovpn_fuzz_session.ts";
import { assembles, demultiplexes, demuxes, parsesEvents } from "./ovpn_fuzz_wire.ts";

export interface Property {
  readonly name: string;
  /** Throws if it does not hold. */
  readonly check: (luck: Luck) => void | Promise<void>;
  /** In CI; all of them together take some seconds. */
  readonly rounds: number;
}

export const PROPERTIES: readonly Property[] = [
  { name: "lines do not depend on the chunks that they come in", check: demuxes, rounds: 1000 },
  { name: "demultiplex() gives every line to its stream", check: demultiplexes, rounds: 300 },
  { name: "any line is an event that says all of it", check: parsesEvents, rounds: 500 },
  { name: "an EventAssembler loses no line in silence", check: assembles, rounds: 1000 },
  { name: "a status report is read without losing a row", check: readsStatus, rounds: 1500 },
  { name: "a history is read, or refused", check: readsHistories, rounds: 1000 },
  { name: "a value is read, or refused", check: readsValues, rounds: 500 },
  { name: "a reply takes whatever comes", check: shapesReplies, rounds: 1000 },
  { name: "a command arrives as it was meant, or is refused", check: encodes, rounds: 2000 },
  {
    name: "a session settles all that waits, and tells every event",
    check: survives,
    rounds: 400,
  },
  { name: "a simulated daemon survives any manager", check: simulates, rounds: 150 },
];

/** Checks a property with the seeds from `first` on; the error tells which one it was. */
export async function runProperty(
  property: Property,
  first: number,
  rounds: number,
): Promise<void> {
  for (let seed = first; seed < first + rounds; seed++) {
    try {
      await property.check(new Luck(seed));
    } catch (error) {
      throw new Error(`${property.name}: FUZZ_SEED=${seed}: ${error}`, { cause: error });
    }
  }
}
