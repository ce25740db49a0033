/**
 * How a client comes to a server that has a name.
 *
 * @module
 */
import { auto } from "../adapters/auto.ts";
import type { Conn, Listener, ListenOptions, Transport, WaitOptions } from "../adapters/types.ts";
import { connectUnixgram, listenUnixgram } from "../adapters/unixgram.ts";
import { type Admission, needsCredentials } from "./admission.ts";
import { UdsError } from "./errors.ts";
import { socketAddress, unixgramPath } from "./name.ts";

/** Speaks the datagrams of the Go package, and nothing that it does not know. */
export type Unixgram = "unixgram";

/** Connects, by the adapter of the runtime unless `transport` says otherwise. */
export async function connectTo(
  name: string,
  transport: Pick<Transport, "connect"> | Unixgram | undefined,
  admission: Admission,
  { signal }: WaitOptions,
): Promise<Conn> {
  if (transport !== "unixgram") {
    const credentials = needsCredentials(admission);
    return await (transport ?? auto).connect(await socketAddress(name), { signal, credentials });
  }
  requireNoAdmission(admission);
  return await connectUnixgram(unixgramPath(name), { signal });
}

/** Listens, likewise. */
export async function listenAt(
  name: string,
  transport: Pick<Transport, "listen"> | Unixgram | undefined,
  admission: Admission,
  { signal, mode, maxPeers }: Pick<ListenOptions, "signal" | "mode"> & { maxPeers: number },
): Promise<Listener> {
  if (transport !== "unixgram") {
    const credentials = needsCredentials(admission);
    return await (transport ?? auto).listen(await socketAddress(name), {
      signal,
      mode,
      credentials,
    });
  }
  requireNoAdmission(admission);
  if (mode !== undefined) throw new UdsError("unsupported", "a mode of a unixgram socket");
  return await listenUnixgram(unixgramPath(name), { signal, maxPeers });
}

/** The Go package has neither; a promise of it must not be broken silently. */
function requireNoAdmission({ peerCred, token }: Admission): void {
  const what = token !== undefined ? "a token" : peerCred === "require" ? "peerCred" : undefined;
  if (what !== undefined) throw new UdsError("unsupported", `${what} over unixgram sockets`);
}
