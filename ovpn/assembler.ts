/**
 * From the lines of a block to one event.
 *
 * @module
 */
import { requireLimit } from "../adapters/limits.ts";
import { type EnvFault, envMap } from "./env.ts";
import type { ManagementEvent } from "./event.ts";
import { type BlockEvent, type EnvLineEvent, gathered } from "./event_client.ts";

/** Options of an {@linkcode EventAssembler}. */
export interface EventAssemblerOptions {
  /** How large the lines of one block may be together, in bytes and 32 more for each. @default 262144 */
  readonly maxEnvBytes?: number | undefined;
}

const DEFAULT_MAX_ENV_BYTES = 262144;
/** What a line costs beside its bytes. */
const LINE_OVERHEAD_BYTES = 32;
const LF = 10;
/** Enough for most, and doubled when it is not. */
const RAW_BYTES = 4096;

/** A copy of lines, with an LF between them: as they come, they may be views of far more. */
class Lines {
  #bytes = new Uint8Array(RAW_BYTES);
  #length = 0;

  push(line: Uint8Array): void {
    const end = this.#length + 1 + line.length;
    if (end > this.#bytes.length) {
      const larger = new Uint8Array(Math.max(2 * this.#bytes.length, end));
      larger.set(this.#bytes);
      this.#bytes = larger;
    }
    if (this.#length > 0) this.#bytes[this.#length++] = LF;
    this.#bytes.set(line, this.#length);
    this.#length += line.length;
  }

  all(): Uint8Array {
    return this.#bytes.slice(0, this.#length);
  }
}

/** What was gathered since `header`. */
interface Block {
  readonly header: BlockEvent;
  readonly raw: Lines;
  readonly env: Map<string, string>;
  readonly envAll: (readonly [string, string])[];
  readonly faults: Set<EnvFault>;
  size: number;
}

/**
 * Gathers the lines of a `CLIENT` or `UPDOWN` block, which {@linkcode parseEvent} gives one by one, into the event that began it,
 * which comes when its last line has. Everything else passes at once, also between the lines of a block. Pure, and bounded by
 * `maxEnvBytes`.
 *
 * A block that does not end before the next one, or before {@linkcode EventAssembler.end}, comes out as it is, and one that grows too
 * large loses the rest; `envFaults` says so. A line outside of any block passes as the event that it is.
 *
 * @example
 * ```ts
 * import { EventAssembler, parseEvent } from "@trunkline/sockets/ovpn";
 *
 * const assembler = new EventAssembler();
 * for (const line of ["CLIENT:CONNECT,7,1", "CLIENT:ENV,common_name=alice", "CLIENT:ENV,END"]) {
 *   for (const event of assembler.push(parseEvent(line))) {
 *     if (event.type === "CLIENT" && event.kind === "CONNECT") {
 *       console.log(event.clientId, event.env.get("common_name"), event.envFaults); // 7 alice []
 *     }
 *   }
 * }
 * ```
 */
export class EventAssembler {
  readonly #maxEnvBytes: number;
  #block: Block | undefined;

  /**
   * Makes one that is within no block.
   *
   * @throws {RangeError} if `maxEnvBytes` is not positive
   */
  constructor({ maxEnvBytes = DEFAULT_MAX_ENV_BYTES }: EventAssemblerOptions = {}) {
    requireLimit("maxEnvBytes", maxEnvBytes);
    this.#maxEnvBytes = maxEnvBytes;
  }

  /** Takes the next event; gives what is complete by it. */
  push(event: ManagementEvent): readonly ManagementEvent[] {
    switch (event.type) {
      case "CLIENT":
        return event.kind === "ADDRESS" ? [event] : this.#begin(event);
      case "UPDOWN":
        return this.#begin(event);
      case "CLIENT_ENV":
        return this.#take("CLIENT", event);
      case "UPDOWN_ENV":
        return this.#take("UPDOWN", event);
      case "unknown":
        // Perhaps what OpenVPN has made of a variable.
        if (event.keyword === this.#block?.header.type) this.#block.faults.add("unexpected");
        return [event];
      default:
        return [event];
    }
  }

  /** Gives the block that the end of the connection cut, if any. */
  end(): readonly ManagementEvent[] {
    const block = this.#block;
    if (block === undefined) return [];
    block.faults.add("incomplete");
    return [this.#finish(block)];
  }

  #begin(header: BlockEvent): readonly ManagementEvent[] {
    const before = this.end();
    const env = envMap();
    const size = header.raw.length + LINE_OVERHEAD_BYTES;
    const raw = new Lines();
    raw.push(header.raw);
    this.#block = { header, raw, env, envAll: [], faults: new Set(), size };
    return before;
  }

  #take(
    of: BlockEvent["type"],
    line: EnvLineEvent<"CLIENT_ENV"> | EnvLineEvent<"UPDOWN_ENV">,
  ): readonly ManagementEvent[] {
    const block = this.#block;
    if (block?.header.type !== of) return [line];
    const { name, value, raw } = line;
    if (line.overlong) block.faults.add("overlong");
    if (line.end) {
      block.raw.push(raw);
      return [this.#finish(block)];
    }
    // Also of a line that does not fit, and then none after it does: what is kept is a beginning.
    block.size += raw.length + LINE_OVERHEAD_BYTES;
    if (block.size > this.#maxEnvBytes) {
      block.faults.add("too-large");
      return [];
    }
    block.raw.push(raw);
    block.envAll.push([name, value]);
    const first = block.env.get(name);
    if (first === undefined) block.env.set(name, value);
    else if (first !== value) block.faults.add("repeated");
    return [];
  }

  #finish({ header, raw, env, envAll, faults }: Block): ManagementEvent {
    this.#block = undefined;
    return gathered(header, raw.all(), { env, envAll, envFaults: [...faults] });
  }
}
