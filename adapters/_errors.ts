/**
 * From what a runtime throws to a {@linkcode ConnectError}.
 *
 * @module
 */
import { formatAddress } from "./address.ts";
import { type Address, ConnectError, type ConnectErrorCode } from "./types.ts";

/** System error codes (node:net everywhere, most Deno errors) and the names of Deno's error classes. */
const CODES: Readonly<Record<string, ConnectErrorCode>> = {
  ECONNREFUSED: "refused",
  ConnectionRefused: "refused",
  ETIMEDOUT: "timeout",
  TimedOut: "timeout",
  TimeoutError: "timeout",
  AbortError: "aborted",
  ENOENT: "not-found",
  ENOTDIR: "not-found",
  ENOTFOUND: "not-found",
  EAI_AGAIN: "not-found",
  EAI_FAIL: "not-found",
  EAI_NONAME: "not-found",
  NotFound: "not-found",
  EACCES: "permission",
  EPERM: "permission",
  PermissionDenied: "permission",
  NotCapable: "permission",
  ERR_ACCESS_DENIED: "permission",
  EADDRINUSE: "in-use",
  AddrInUse: "in-use",
  // A unix listener whose backlog is full: somebody is there, but busy.
  EAGAIN: "refused",
  EADDRNOTAVAIL: "unreachable",
  AddrNotAvailable: "unreachable",
  ENETUNREACH: "unreachable",
  EHOSTUNREACH: "unreachable",
  ENETDOWN: "unreachable",
  EHOSTDOWN: "unreachable",
  NetworkUnreachable: "unreachable",
  HostUnreachable: "unreachable",
  ECONNRESET: "reset",
  ConnectionReset: "reset",
  ECONNABORTED: "reset",
  ConnectionAborted: "reset",
  // libuv's word for a write that was under way when the connection broke.
  ECANCELED: "reset",
  EPIPE: "broken-pipe",
  BrokenPipe: "broken-pipe",
  ENOTCONN: "broken-pipe",
  NotConnected: "broken-pipe",
  // node:net on Bun answers a write to a peer that went away with these two.
  EBADF: "broken-pipe",
  ERR_STREAM_DESTROYED: "broken-pipe",
  ERR_SOCKET_CLOSED: "closed",
  ERR_SOCKET_DGRAM_NOT_RUNNING: "closed",
  BadResource: "closed",
  Interrupted: "closed",
  ENAMETOOLONG: "invalid-address",
  ERR_INVALID_IP_ADDRESS: "invalid-address",
  ERR_SOCKET_BAD_PORT: "invalid-address",
  EPROTO: "tls",
  ENOTSUP: "unsupported",
  NotSupported: "unsupported",
};

const TEXT: Readonly<Record<ConnectErrorCode, string>> = {
  refused: "connection refused",
  timeout: "timed out",
  "not-found": "not found",
  permission: "permission denied",
  "in-use": "address in use",
  unreachable: "address unreachable",
  reset: "connection reset by the peer",
  "broken-pipe": "the peer no longer reads",
  closed: "closed",
  aborted: "aborted",
  tls: "TLS failed",
  "invalid-address": "invalid address",
  unsupported: "not supported by this runtime",
  other: "failed",
};

/** OpenSSL's verification results and the TLS errors of the runtimes. */
const TLS_CODE =
  /^(?:ERR_TLS_|ERR_SSL_|ERR_OSSL_|ERR_BORINGSSL|CERT_|UNABLE_TO_|SELF_SIGNED_|DEPTH_ZERO_|HOSTNAME_MISMATCH|INVALID_CA)/;

function codeOf(error: unknown): ConnectErrorCode {
  if (typeof error !== "object" || error === null) return "other";
  const { code, name, message, errors } = error as Partial<AggregateError> & { code?: unknown };
  for (const key of [code, name]) {
    if (typeof key !== "string") continue;
    if (Object.hasOwn(CODES, key)) return CODES[key]!;
    if (TLS_CODE.test(key)) return "tls";
  }
  // Several addresses were tried: the first failure speaks for all.
  if (Array.isArray(errors) && errors.length > 0) return codeOf(errors[0]);
  // Deno reports a failed look-up as a plain Error without a code (docs/adapters.md, differences).
  if (message?.includes("failed to lookup address")) return "not-found";
  return "other";
}

/**
 * Maps `error`; `doing` says what was being done ("connecting to 127.0.0.1:1"). A ConnectError passes unchanged.
 */
export function toConnectError(error: unknown, doing: string): ConnectError {
  if (error instanceof ConnectError) return error;
  return connectError(codeOf(error), doing, error);
}

/** A ConnectError with the usual text of its code. */
export function connectError(code: ConnectErrorCode, doing: string, cause?: unknown): ConnectError {
  const detail = code === "other" || code === "tls" ? detailOf(cause) : "";
  return new ConnectError(
    code,
    `${doing}: ${TEXT[code]}${detail}`,
    cause === undefined ? undefined : { cause },
  );
}

/** What `reloadTls` throws on a listener without TLS. */
export function noTls(addr: Address): ConnectError {
  const doing = `reloading TLS of ${formatAddress(addr)}`;
  return new ConnectError("unsupported", `${doing}: this listener speaks no TLS`);
}

/** What a runtime would have thrown: the text is made where it is known what was being done, and with whom. */
export function codedError(code: string): Error {
  return Object.assign(new Error(code), { code });
}

function detailOf(cause: unknown): string {
  if (!(cause instanceof Error)) return "";
  const code = (cause as { code?: unknown }).code;
  // OpenSSL ends its messages with a line end.
  const message = cause.message.trim().replace(/\s*\n\s*/g, " ");
  return ` (${typeof code === "string" ? `${code}: ` : ""}${message})`;
}

/** What a wait rejects with when its signal fires: `timeout` for `AbortSignal.timeout`, else `aborted`. */
export function abortError(signal: AbortSignal, doing: string): ConnectError {
  const { reason } = signal;
  const timeout = reason instanceof DOMException && reason.name === "TimeoutError";
  return connectError(timeout ? "timeout" : "aborted", doing, reason);
}

/**
 * Waits for `promise` until `signal` fires. What comes too late is given to `late`, so that a connection that nobody
 * waits for any more is closed and not leaked.
 */
export function abortable<T>(
  promise: Promise<T>,
  signal: AbortSignal | undefined,
  doing: string,
  late?: (value: T) => void,
): Promise<T> {
  if (signal === undefined) {
    return promise.catch((error) => Promise.reject(toConnectError(error, doing)));
  }
  return new Promise<T>((resolve, reject) => {
    const onAbort = () => reject(abortError(signal, doing));
    if (signal.aborted) onAbort();
    else signal.addEventListener("abort", onAbort, { once: true });
    promise.then(
      (value) => {
        signal.removeEventListener("abort", onAbort);
        if (signal.aborted) late?.(value);
        else resolve(value);
      },
      (error) => {
        signal.removeEventListener("abort", onAbort);
        reject(toConnectError(error, doing));
      },
    );
  });
}
