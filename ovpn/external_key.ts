/**
 * A private key that OpenVPN does not have: `--management-external-key` and `--management-external-cert`.
 *
 * @module
 */
import { requireFunction } from "../adapters/limits.ts";
import type { WaitOptions } from "../adapters/types.ts";
import {
  answerEvents,
  type Answering,
  ask,
  deliver,
  notDelivered,
  type Open,
  type Report,
  report,
  Slot,
} from "./_answering.ts";
import { fromBase64 } from "./_base64.ts";
import { persist } from "./_persist.ts";
import { AnswerError } from "./answer_error.ts";
import type { ManagementClient } from "./client.ts";
import type { ManagementEvent } from "./event.ts";
import type { NeedCertificateEvent, SignEvent } from "./event_request.ts";
import { cryptoKeySigner, type Signer, type SigningKey } from "./signer.ts";

/** The first version in which OpenVPN tells the algorithm. */
const ALGORITHM_VERSION = 3;

/** Options of {@linkcode provideKey}. */
export interface KeyOptions extends WaitOptions {
  /** The certificate that belongs to the key, in PEM, for `--management-external-cert`. @default none: `no-callback` if it is asked for */
  readonly certificate?: string | undefined;
  /**
   * What to tell OpenVPN by `setVersion()`. It is one number for the whole connection: give the one that you need beside, such as 5 for
   * long passwords. @default 3
   */
  readonly version?: number | undefined;
  /** Hears of what was not answered, since OpenVPN waits for it all the same. What it throws is ignored. */
  onError(error: AnswerError): void;
}

/**
 * Signs for an OpenVPN client with a key that it does not have, from now on (and what it asked for before anybody read
 * `client.events`). Turns on the version of the interface in which OpenVPN tells the algorithm.
 *
 * `key` is a function, or one or several of WebCrypto, of which the first that can sign is taken. WebCrypto digests by itself, so it needs
 * the message, which OpenVPN sends with the flag `digest`: `--management-external-key pkcs1 pss digest`. Without it there are digests
 * only, for which (but for Ed25519 and Ed448, which have none) it takes a function.
 *
 * What was not answered is told to `onError`, and OpenVPN goes on waiting: `sendSignal("SIGTERM")` ends that. `onError` is told, too,
 * each time that the version could not be told; it is tried again when a reply is late, and over the next connection.
 *
 * @throws {TypeError} if there is no key, or one that may not sign, or if `onError` is no function
 * @throws {RangeError} if `version` is less than 3
 *
 * @example
 * ```ts
 * import { dial, provideKey } from "@trunkline/sockets/ovpn";
 * import { simulateDaemon } from "@trunkline/sockets/ovpn/testing";
 *
 * const daemon = simulateDaemon(); // in life: an OpenVPN with --management-external-key pss digest
 * const client = await dial(await daemon.listen());
 * const pair = await crypto.subtle.generateKey({ name: "ECDSA", namedCurve: "P-256" }, false, ["sign", "verify"]);
 * provideKey(client, pair.privateKey, { onError: (error) => console.error(error.message) });
 * await client.pid(); // the version is told
 * const signature = await daemon.sign(new Uint8Array(64), "ECDSA,hashalg=SHA256,data=message");
 * console.log(signature[0]); // 48: DER
 * await client.close();
 * await daemon.close();
 * ```
 */
export function provideKey(
  client: ManagementClient,
  key: SigningKey | readonly SigningKey[] | Signer,
  options: KeyOptions,
): Answering {
  const { version = ALGORITHM_VERSION } = options;
  requireFunction("onError", options.onError);
  if (!Number.isInteger(version) || version < ALGORITHM_VERSION) {
    throw new RangeError(`version is ${version}, expected at least ${ALGORITHM_VERSION}`);
  }
  const signer = typeof key === "function" ? key : cryptoKeySigner("length" in key ? key : [key]);
  const provider = new Provider(client, signer, options);
  const answering = answerEvents(client, provider.slots, (event) => provider.see(event), options);
  const ended = new AbortController();
  answering.closed.catch(() => {}).finally(() => ended.abort());
  if (!options.signal?.aborted) provider.announce(version, ended.signal);
  return answering;
}

class Provider {
  readonly #sign: Slot;
  readonly #certificate: Slot;
  readonly #client: ManagementClient;
  readonly #signer: Signer;
  readonly #options: KeyOptions;
  readonly #report: Report;
  /** Tells the version unless OpenVPN knows it. */
  #announce: () => void = () => {};

  constructor(client: ManagementClient, signer: Signer, options: KeyOptions) {
    this.#client = client;
    this.#signer = signer;
    this.#options = options;
    this.#report = (error) => options.onError(error);
    this.#sign = new Slot(this.#report);
    this.#certificate = new Slot(this.#report);
  }

  get slots(): readonly Slot[] {
    return [this.#sign, this.#certificate];
  }

  announce(version: number, signal: AbortSignal): void {
    this.#announce = persist((wait) => this.#client.setVersion(version, wait), {
      signal,
      onError: (cause) => report(this.#report, notDelivered("telling the version", cause)),
    });
  }

  async see(event: ManagementEvent): Promise<void> {
    switch (event.type) {
      case "PK_SIGN":
      case "RSA_SIGN":
        if (await this.#sign.repeats(event)) return;
        return this.#sign.open(event, (open) => this.#answer(event, open));
      case "NEED-CERTIFICATE":
        if (await this.#certificate.repeats(event)) return;
        this.#sign.withdraw();
        return this.#certificate.open(event, (open) => this.#give(event, open));
      // At `connected`, so that it waits for the set-up and goes out before what is called after that.
      case "connected":
      case "resumed":
        return this.#announce();
      case "STATE":
        if (event.name !== "RECONNECTING" && event.name !== "EXITING") return;
        break;
      case "HOLD":
        break;
      default:
        return;
    }
    for (const slot of this.slots) slot.withdraw();
  }

  async #answer({ type, data, algorithm, parameters }: SignEvent, open: Open): Promise<void> {
    const { signal } = open;
    const request = {
      data: fromBase64(data),
      algorithm,
      hash: parameters.get("hashalg"),
      saltLength: parameters.get("saltlen"),
      message: parameters.get("data") === "message" || /^ED(?:25519|448)$/.test(algorithm ?? ""),
      signal,
    };
    const signature = await ask(type, this.#options, this.#signer, request);
    if (!(signature instanceof Uint8Array)) {
      throw new AnswerError("invalid-answer", `${type}: the signature is no Uint8Array`);
    }
    open.sending();
    await deliver(type, () => this.#client.pkSign(signature, { signal }));
  }

  async #give({ type }: NeedCertificateEvent, open: Open): Promise<void> {
    const { certificate } = this.#options;
    if (certificate === undefined) {
      throw new AnswerError("no-callback", `${type}: there is no certificate in the options`);
    }
    open.sending();
    await deliver(type, () => this.#client.certificate(certificate, { signal: open.signal }));
  }
}
