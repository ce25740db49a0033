/**
 * The AEADs of this runtime, and which of them is the fastest.
 *
 * @module
 */
import { nodeAead } from "./_aead_node.ts";
import { sodiumAead } from "./_aead_sodium.ts";
import { webAead } from "./_aead_web.ts";
import { runtimeGlobal } from "./_node_builtins.ts";
import { type Aead, type AeadCipher, nobleAead, nobleAesAead, type Opened } from "./aead.ts";

export { fromSodium, type SodiumLike } from "./_aead_sodium.ts";

/** What {@linkcode loadAead} can load by name. */
export type AeadName = "noble" | "libsodium" | "node" | "webcrypto";

const LOADERS: Readonly<Record<AeadName, (cipher: AeadCipher) => Promise<Aead | undefined>>> = {
  noble: (cipher) => Promise.resolve(nobleOf(cipher)),
  // Its AES needs instructions that WebAssembly does not have.
  libsodium: (cipher) => cipher === "AES-256-GCM" ? Promise.resolve(undefined) : sodiumAead(),
  node: (cipher) => Promise.resolve(nodeAead(cipher)),
  webcrypto: webAead,
};

const CIPHERS: readonly AeadCipher[] = ["ChaCha20-Poly1305", "AES-256-GCM"];

const nobleOf = (cipher: AeadCipher): Aead => cipher === "AES-256-GCM" ? nobleAesAead : nobleAead;

/**
 * From these lengths on, in bytes, the runtime's own cipher is taken: it is the faster one for long messages, but has to be started for
 * each, which takes longer than a short one needs in WebAssembly. WebCrypto works in another thread, and the way there is longer still.
 * See the tables in docs/mux.md.
 */
export const NATIVE_FROM_BYTES: { readonly node: number; readonly webcrypto: number } = {
  node: 2048,
  webcrypto: 8192,
};

/**
 * The same for AES-256-GCM on Deno, whose node:crypto is slow at length. Elsewhere one is the fastest at any length: node:crypto on Node
 * and Bun, WebCrypto in browsers.
 */
export const AES_WEB_FROM_BYTES = 8192;

/**
 * Loads an implementation by its name; without a name the fastest that this runtime has, which may be two: one for short messages and
 * one for long ones.
 *
 * @throws {TypeError} if this runtime does not have that one for that cipher
 */
export async function loadAead(
  name?: AeadName,
  cipher: AeadCipher = "ChaCha20-Poly1305",
): Promise<Aead> {
  if (!CIPHERS.includes(cipher)) throw new TypeError(`there is no AEAD for ${cipher}`);
  const id = `${name} ${cipher}`;
  if (!loaded.has(id)) {
    loaded.set(id, name === undefined ? loadBest(cipher) : LOADERS[name]?.(cipher));
  }
  const aead = await loaded.get(id);
  if (aead === undefined) {
    throw new TypeError(`this runtime has no AEAD called ${name} for ${cipher}`);
  }
  return aead;
}

/** Each is loaded once: they keep what they make of a key, and libsodium its memory. */
const loaded = new Map<string, Promise<Aead | undefined> | undefined>();

async function loadBest(cipher: AeadCipher): Promise<Aead> {
  const node = nodeAead(cipher);
  if (cipher === "AES-256-GCM") {
    if (node !== undefined && runtimeGlobal("Deno") === undefined) return node;
    const web = await webAead(cipher);
    if (web === undefined) return node ?? nobleAesAead;
    return node === undefined ? web : byLength(node, web, AES_WEB_FROM_BYTES);
  }
  const short = await sodiumAead() ?? nobleAead;
  if (node !== undefined) return byLength(short, node, NATIVE_FROM_BYTES.node);
  // Only where node's own lacks the cipher: WebCrypto on Node warns that it is experimental.
  const web = await webAead(cipher);
  return web === undefined ? short : byLength(short, web, NATIVE_FROM_BYTES.webcrypto);
}

/** Takes `long` for messages of `from` bytes and more, and `short` for the others. */
export function byLength(short: Aead, long: Aead, from: number): Aead {
  const choose = ({ input }: { readonly input: Uint8Array }) => input.length < from ? short : long;
  return {
    name: `${short.name}, from ${from} bytes ${long.name}`,
    cipher: long.cipher,
    seal(boxes) {
      const first = boxes[0] && choose(boxes[0]);
      if (first === undefined) return;
      if (boxes.every((box) => choose(box) === first)) return first.seal(boxes);
      // The long ones first: they may go on elsewhere while the short ones are done here.
      const there = long.seal(boxes.filter((box) => choose(box) === long));
      // Handled, should the short ones throw before anyone waits for it.
      there?.catch(() => {});
      const here = short.seal(boxes.filter((box) => choose(box) === short));
      if (there === undefined && here === undefined) return;
      return Promise.all([there, here]).then(() => {});
    },
    open(boxes) {
      const first = boxes[0] && choose(boxes[0]);
      if (first === undefined) return [];
      if (boxes.every((box) => choose(box) === first)) return first.open(boxes);
      const there = long.open(boxes.filter((box) => choose(box) === long));
      if ("then" in there) there.catch(() => {});
      const here = short.open(boxes.filter((box) => choose(box) === short));
      const merge = (longs: Opened, shorts: Opened): Opened => {
        let longsTaken = 0;
        let shortsTaken = 0;
        return boxes.map((box) =>
          choose(box) === long ? longs[longsTaken++] : shorts[shortsTaken++]
        );
      };
      if ("then" in there || "then" in here) {
        return Promise.all([there, here]).then(([longs, shorts]) => merge(longs, shorts));
      }
      return merge(there, here);
    },
  };
}
