/**
 * A secret in a file.
 *
 * @module
 */
import { connectError, toConnectError } from "./_errors.ts";
import { builtin } from "./_node_builtins.ts";

/** More is no token. */
const MAX_TOKEN_BYTES = 4096;

/**
 * The first line of a file. Deno asks for `--allow-read` of it.
 *
 * @throws {ConnectError} `permission` if everybody may read or write it, `not-found`, or `other` if it has no line, or one of more than 4096 bytes
 */
export async function readTokenFile(path: string): Promise<string> {
  const doing = `reading the token ${path}`;
  try {
    const fs = builtin("node:fs/promises");
    const file = await fs.open(path, "r");
    try {
      const { mode } = await file.stat({ bigint: true });
      if ((mode & 0o006n) !== 0n) {
        throw connectError("permission", `${doing}: everybody may use that file`);
      }
      const bytes = new Uint8Array(MAX_TOKEN_BYTES + 1);
      const { bytesRead } = await file.read(bytes, 0, bytes.length, 0);
      const [token = ""] = new TextDecoder().decode(bytes.subarray(0, bytesRead)).split(/\r?\n/);
      if (token === "" || bytesRead > MAX_TOKEN_BYTES) {
        throw connectError("other", `${doing}: no line of 1 to ${MAX_TOKEN_BYTES} bytes`);
      }
      return token;
    } finally {
      await file.close();
    }
  } catch (error) {
    throw toConnectError(error, doing);
  }
}
