/**
 * The few parts of node's built-in modules that the adapters use, with structural types of their own, and the way to
 * them: `process.getBuiltinModule` at call time works in Deno, Bun and Node 22.3 or newer, asks no permission until it is used, and
 * leaves nothing for a browser's bundler to trip over.
 *
 * @module
 */
import { connectError } from "./_errors.ts";

type Listener = (...args: never[]) => void;

interface Emitter {
  on(event: string, listener: Listener): this;
  once(event: string, listener: Listener): this;
  emit(event: string, ...args: unknown[]): boolean;
}

/** A `net.Socket` or `tls.TLSSocket`. */
export interface NodeSocket extends Emitter {
  readonly localAddress?: string;
  readonly localPort?: number;
  readonly remoteAddress?: string;
  readonly remotePort?: number;
  readonly destroyed: boolean;
  /** Looked at when the peer's end comes. */
  allowHalfOpen: boolean;
  readonly _handle?: { readonly fd?: number } | null;
  read(): Uint8Array | null;
  write(bytes: Uint8Array, done: (error?: Error | null) => void): boolean;
  cork(): void;
  uncork(): void;
  end(done: (error?: Error | null) => void): void;
  destroy(error?: Error): void;
  resetAndDestroy?(): void;
  setNoDelay(on: boolean): void;
  setKeepAlive(on: boolean, delayMs: number): void;
  // TLS only.
  readonly _parent?: NodeSocket | null;
  readonly authorized?: boolean;
  readonly alpnProtocol?: string | false | null;
  getProtocol?(): string | null;
  getPeerCertificate?(): { readonly raw?: Uint8Array };
}

/** A `stream.Duplex`. */
export interface NodeDuplex extends Emitter {
  push(chunk: Uint8Array | null): boolean;
  destroy(error?: Error): void;
}

/** A `net.Server` or `tls.Server`. */
export interface NodeServer extends Emitter {
  listen(options: Record<string, unknown>): void;
  address(): { readonly address: string; readonly port: number } | string | null;
  close(done?: () => void): void;
}

/** A `dgram.Socket`. */
export interface NodeDatagramSocket extends Emitter {
  bind(options: { port: number; address: string; exclusive: boolean }): void;
  address(): { readonly address: string; readonly port: number };
  send(
    data: Uint8Array,
    port: number,
    address: string,
    done: (error: Error | null) => void,
  ): void;
  addMembership(group: string, iface?: string): void;
  dropMembership(group: string, iface?: string): void;
  setMulticastInterface(iface: string): void;
  close(done?: () => void): void;
}

/** An address of a network interface. */
export interface NodeInterfaceAddress {
  readonly address: string;
  readonly family: string;
}

/** What `lstat` and `stat` tell. */
export interface Stats {
  readonly ino: bigint;
  readonly dev: bigint;
  readonly mode: bigint;
  readonly uid: bigint;
  readonly mtimeMs: bigint;
  readonly ctimeNs: bigint;
  isSocket(): boolean;
  isDirectory(): boolean;
}

/** An open file. */
interface FileHandle {
  stat(options: { bigint: true }): Promise<Stats>;
  read(
    into: Uint8Array,
    offset: number,
    length: number,
    position: number,
  ): Promise<{ readonly bytesRead: number }>;
  close(): Promise<void>;
}

/** A `crypto.Cipheriv` for an AEAD. */
interface NodeCipher {
  setAAD(aad: Uint8Array): void;
  update(bytes: Uint8Array): Uint8Array<ArrayBuffer>;
  final(): unknown;
  getAuthTag(): Uint8Array;
}

/** A `crypto.Decipheriv` for an AEAD. */
interface NodeDecipher {
  setAAD(aad: Uint8Array): void;
  setAuthTag(tag: Uint8Array): void;
  update(bytes: Uint8Array): Uint8Array<ArrayBuffer>;
  final(): unknown;
}

/** A `crypto.KeyObject`. */
export interface NodeKey {
  readonly type: string;
  export(options: { readonly format: "der"; readonly type: "spki" }): Uint8Array;
}

/** A key in DER, and which kind of. */
interface NodeDer<Type extends "pkcs8" | "spki"> {
  readonly key: Uint8Array;
  readonly format: "der";
  readonly type: Type;
}

/** A `crypto.X509Certificate`. */
export interface NodeCertificate {
  checkPrivateKey(key: NodeKey): boolean;
}

type CipherParameters = readonly [
  name: string,
  key: Uint8Array | NodeKey,
  nonce: Uint8Array,
  options: { readonly authTagLength: number },
];

interface Builtins {
  "node:crypto": {
    createSecretKey(key: Uint8Array): NodeKey;
    createPrivateKey(key: string | NodeDer<"pkcs8">): NodeKey;
    createPublicKey(key: NodeKey | NodeDer<"spki">): NodeKey;
    generateKeyPairSync(
      type: "x25519",
    ): { readonly privateKey: NodeKey; readonly publicKey: NodeKey };
    diffieHellman(keys: { readonly privateKey: NodeKey; readonly publicKey: NodeKey }): Uint8Array;
    readonly X509Certificate: new (pem: string) => NodeCertificate;
    createCipheriv(...parameters: CipherParameters): NodeCipher;
    createDecipheriv(...parameters: CipherParameters): NodeDecipher;
  };
  "node:net": {
    connect(options: Record<string, unknown>): NodeSocket;
    createServer(options: Record<string, unknown>): NodeServer;
  };
  "node:tls": {
    connect(options: Record<string, unknown>): NodeSocket;
    createServer(options: Record<string, unknown>): NodeServer;
  };
  "node:stream": {
    readonly Duplex: new (options: Record<string, unknown>) => NodeDuplex;
  };
  "node:dgram": {
    createSocket(options: Record<string, unknown>): NodeDatagramSocket;
  };
  "node:dns/promises": {
    lookup(
      host: string,
      options: { readonly family: 0 | 4 | 6 },
    ): Promise<{ readonly address: string; readonly family: number }>;
  };
  "node:fs": {
    chmodSync(path: string, mode: number): void;
    unlinkSync(path: string): void;
  };
  "node:fs/promises": {
    mkdir(path: string, options?: { readonly mode: number }): Promise<unknown>;
    mkdtemp(prefix: string): Promise<string>;
    chmod(path: string, mode: number): Promise<void>;
    link(from: string, to: string): Promise<void>;
    unlink(path: string): Promise<void>;
    rmdir(path: string): Promise<void>;
    open(path: string, flags: "r"): Promise<FileHandle>;
    lstat(path: string, options: { bigint: true }): Promise<Stats>;
    stat(path: string, options: { bigint: true }): Promise<Stats>;
    readlink(path: string): Promise<string>;
    readFile(path: string, encoding: "utf8"): Promise<string>;
  };
  "node:os": {
    tmpdir(): string;
    networkInterfaces(): Record<string, readonly NodeInterfaceAddress[] | undefined>;
  };
  "node:path": {
    resolve(path: string): string;
    dirname(path: string): string;
    join(...parts: string[]): string;
  };
  "node:util": {
    getSystemErrorName(errno: number): string;
  };
  "node:ffi": unknown;
  "bun:ffi": unknown;
}

interface ProcessLike {
  readonly platform: string;
  readonly pid: number;
  readonly env: Record<string, string | undefined>;
  getuid?(): number;
  getBuiltinModule?(name: string): unknown;
}

/** The global object of a runtime, seen as the part of it that the caller uses; `undefined` elsewhere. */
export function runtimeGlobal<T>(name: "Bun" | "Deno"): T | undefined {
  return (globalThis as Record<string, unknown>)[name] as T | undefined;
}

function processLike(): ProcessLike | undefined {
  return (globalThis as { process?: ProcessLike }).process;
}

/** A built-in module, or `undefined` where this runtime has none of that name. */
export function findBuiltin<Name extends keyof Builtins>(name: Name): Builtins[Name] | undefined {
  return processLike()?.getBuiltinModule?.(name) as Builtins[Name] | undefined;
}

/** A built-in module; `unsupported` where this runtime has none of that name. */
export function builtin<Name extends keyof Builtins>(name: Name): Builtins[Name] {
  const found = findBuiltin(name);
  if (found === undefined) throw connectError("unsupported", `loading ${name}`);
  return found;
}

/** The operating system in node's words: `linux`, `darwin`, `win32`, ... */
export function platform(): string {
  return processLike()?.platform ?? "unknown";
}

/** A variable of the environment. */
export function environment(name: string): string | undefined {
  return processLike()?.env[name];
}

/** Takes a variable out of the environment: neither we nor the processes that we start see it any more. */
export function unsetEnvironment(name: string): void {
  delete processLike()?.env[name];
}

/** The process that we are, where there are processes. */
export function processId(): number | undefined {
  return processLike()?.pid;
}

/** The user that we are, where there are users. */
export function userId(): number | undefined {
  return processLike()?.getuid?.();
}
