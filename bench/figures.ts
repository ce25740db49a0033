/**
 * What the benchmarks make of their options and measurements.
 *
 * @module
 */
import process from "node:process";

/** The runtime that they run on, with its version. */
export function runtimeName(): string {
  const { deno, bun, node } = process.versions;
  return deno ? `Deno ${deno}` : bun ? `Bun ${bun}` : `Node ${node}`;
}

/** The number of an option, a whole one from 1 on. */
export function positive(option: string, text: string): number {
  const number = Number(text);
  if (!Number.isInteger(number) || number < 1) {
    throw new RangeError(`--${option} is a whole number from 1 on, not "${text}"`);
  }
  return number;
}

/** Of what was measured: NaN stands for what was not. */
export function median(values: readonly number[]): number {
  return quantile(values, 0.5);
}

/** The value below which `share` of the others are; between two of them, in proportion. */
export function quantile(values: readonly number[], share: number): number {
  const sorted = values.filter((value) => !Number.isNaN(value)).sort((a, b) => a - b);
  const place = share * (sorted.length - 1);
  const lower = sorted[Math.floor(place)] ?? NaN;
  return lower + (place % 1) * ((sorted[Math.ceil(place)] ?? NaN) - lower);
}
