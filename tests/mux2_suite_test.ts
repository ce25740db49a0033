import { describe, it } from "node:test";
import { assert, assertEquals, assertThrows } from "@std/assert";
import sodium from "libsodium-wrappers";
import { type NoiseSuite, rekey, writeNonce } from "../mux/v2/suite.ts";
import { hex, unhex } from "./mux2_noise_vectors.ts";

describe("writeNonce()", () => {
  const written = (suite: NoiseSuite, counter: number): string => {
    const nonce = new Uint8Array(12).fill(0xee);
    writeNonce(suite, counter, nonce);
    return hex(nonce);
  };

  it("is little-endian for ChaChaPoly and big-endian for AESGCM", () => {
    const cases: readonly (readonly [number, string, string])[] = [
      [0, "0000000000000000", "0000000000000000"],
      [1, "0100000000000000", "0000000000000001"],
      [0x01020304, "0403020100000000", "0000000001020304"],
      [0xffffffff, "ffffffff00000000", "00000000ffffffff"],
      [0x1_0000_0000, "0000000001000000", "0000000100000000"],
      [0x1a_bbcc_ddee, "eeddccbb1a000000", "0000001abbccddee"],
      [Number.MAX_SAFE_INTEGER, "ffffffffffff1f00", "001fffffffffffff"],
    ];
    for (const [counter, little, big] of cases) {
      assertEquals(written("ChaChaPoly_BLAKE2b", counter), `00000000${little}`);
      assertEquals(written("AESGCM_SHA256", counter), `00000000${big}`);
    }
  });

  it("refuses counters that are none, and writes 12 bytes alone", () => {
    for (const counter of [-1, 0.5, NaN, Infinity, 2 ** 53]) {
      assertThrows(() => written("AESGCM_SHA256", counter), RangeError, `a counter of ${counter}`);
    }
    assertThrows(() => writeNonce("AESGCM_SHA256", 1, new Uint8Array(11)), RangeError, "11 bytes");
    const longer = new Uint8Array(13).fill(0xee);
    writeNonce("AESGCM_SHA256", 1, longer);
    assertEquals(longer[12], 0xee);
  });
});

describe("rekey()", () => {
  const nonce = unhex("00000000ffffffffffffffff");

  it("is what libsodium and WebCrypto say that it is", async () => {
    for (const key of [new Uint8Array(32), crypto.getRandomValues(new Uint8Array(32))]) {
      await sodium.ready;
      const sealed = sodium.crypto_aead_chacha20poly1305_ietf_encrypt(
        ...[new Uint8Array(32), null, null, nonce, key] as const,
      );
      assertEquals(rekey("ChaChaPoly_BLAKE2b", key), sealed.slice(0, 32));
      const imported = await crypto.subtle.importKey("raw", key, "AES-GCM", false, ["encrypt"]);
      const parameters = { name: "AES-GCM", iv: nonce as Uint8Array<ArrayBuffer> };
      const ciphertext = await crypto.subtle.encrypt(parameters, imported, new Uint8Array(32));
      assertEquals(rekey("AESGCM_SHA256", key), new Uint8Array(ciphertext, 0, 32));
      assert(hex(rekey("AESGCM_SHA256", key)) !== hex(key));
    }
  });

  it("refuses keys of another length", () => {
    for (const suite of ["ChaChaPoly_BLAKE2b", "AESGCM_SHA256"] as const) {
      assertThrows(() => rekey(suite, new Uint8Array(31)), RangeError, "a key of 31 bytes");
    }
  });
});
