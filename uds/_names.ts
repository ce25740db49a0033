/**
 * Names of handlers as texts: they are few, and come with each call.
 *
 * @module
 */

const DECODER = new TextDecoder("utf-8", { ignoreBOM: true });
/** Places, each for one name. */
const PLACES = 64;

/** Names that were decoded: one for each place, so that a peer cannot fill memory with them. */
export class Names {
  readonly #bytes: Uint8Array[] = [];
  readonly #texts: string[] = [];

  /** The text of a name; U+FFFD stands for what is not UTF-8. */
  textOf(name: Uint8Array): string {
    const { length } = name;
    const place = (length * 31 + (name[0] ?? 0) * 7 + (name[length - 1] ?? 0)) % PLACES;
    const known = this.#bytes[place];
    if (known !== undefined && sameBytes(known, name)) return this.#texts[place]!;
    const text = DECODER.decode(name);
    this.#bytes[place] = name.slice();
    return this.#texts[place] = text;
  }
}

function sameBytes(a: Uint8Array, b: Uint8Array): boolean {
  if (a.length !== b.length) return false;
  for (let i = 0; i < a.length; i++) if (a[i] !== b[i]) return false;
  return true;
}
