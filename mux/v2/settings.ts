/**
 * What each side tells the other in the handshake (spec-mux2: settings).
 *
 * @module
 */
import type { Limits } from "../config.ts";
import { MuxError } from "../errors.ts";
import { FrameReader, MAX_NUMBER, writeNumber } from "./frame.ts";

/** The settings of one side. */
export interface Settings {
  /** What may be sent to it on a stream at first, in bytes. */
  readonly windowBytes: number;
  /** How many streams it takes at first. */
  readonly streams: number;
  /** When it changes its key. */
  readonly rekeyRecords: number;
  readonly rekeyBytes: number;
  /** It gives up after so long without a record. */
  readonly idleTimeoutMs: number;
}

/** Their numbers on the wire, what holds if one is missing, and the most it may be; the least is 1. */
const FORMAT: Readonly<Record<keyof Settings, { number: number; absent: number; most: number }>> = {
  windowBytes: { number: 1, absent: 131072, most: 2 ** 31 - 1 },
  streams: { number: 2, absent: 128, most: MAX_NUMBER },
  rekeyRecords: { number: 3, absent: 65536, most: 65536 },
  rekeyBytes: { number: 4, absent: 2 ** 30, most: 2 ** 30 },
  idleTimeoutMs: { number: 5, absent: 180_000, most: MAX_NUMBER },
};

/** What we tell. */
export function settingsOf(limits: Limits): Settings {
  const { windowBytes, maxStreams, maxPendingAccepts, rekeyRecords, rekeyBytes } = limits;
  const whole = (value: number) => Math.min(Math.max(1, Math.floor(value)), MAX_NUMBER);
  return {
    windowBytes,
    streams: whole(Math.min(maxStreams, maxPendingAccepts)),
    rekeyRecords,
    rekeyBytes,
    idleTimeoutMs: whole(limits.idleTimeoutMs),
  };
}

/** Pairs of numbers: which setting, and its value. */
export function encodeSettings(settings: Settings): Uint8Array {
  const bytes = new Uint8Array(10 * Object.keys(FORMAT).length);
  let at = 0;
  for (const [name, { number }] of Object.entries(FORMAT)) {
    at = writeNumber(bytes, writeNumber(bytes, at, number), settings[name as keyof Settings]);
  }
  return bytes.slice(0, at);
}

/**
 * Reads what the peer tells. What we do not know is skipped.
 *
 * @throws {MuxError} `protocol` for a value that is none
 */
export function decodeSettings(bytes: Uint8Array): Settings {
  const numbers = new FrameReader().numbers(bytes);
  if (numbers.length % 2 !== 0) throw new MuxError("protocol", "a setting without a value");
  const told = new Map<number, number>();
  for (let i = 0; i < numbers.length; i += 2) told.set(numbers[i]!, numbers[i + 1]!);
  const settings: Record<string, number> = {};
  for (const [name, { number, absent, most }] of Object.entries(FORMAT)) {
    const value = told.get(number) ?? absent;
    if (value < 1 || value > most) {
      throw new MuxError("protocol", `the peer's ${name} is ${value}, expected 1 to ${most}`);
    }
    settings[name] = value;
  }
  return settings as unknown as Settings;
}
