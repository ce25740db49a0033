/**
 * Whether the calls of a client are handled.
 *
 * @module
 */
import type { Conn, PeerCredentials } from "../adapters/types.ts";
import { admit, proves } from "./admission.ts";
import { RemoteError, UdsError } from "./errors.ts";
import type { ServerSettings } from "./server_options.ts";

/** One for each client. */
export class Gate {
  /** Who it is, if that is known. */
  peer: PeerCredentials | undefined;
  /** Why nothing of it is handled, unless it proves that it may call. */
  refusal: RemoteError | undefined;
  /** What it can prove that with. */
  #token: ServerSettings["token"];
  readonly #settings: ServerSettings;
  #proving = false;
  readonly #timer: ReturnType<typeof setTimeout>;

  /** `late` is called after `admissionTimeoutMs` without a proof. */
  constructor(settings: ServerSettings, late: () => void) {
    this.#settings = settings;
    this.#token = settings.token;
    this.#timer = setTimeout(late, settings.admissionTimeoutMs);
  }

  /** Finds out who it is. */
  async meet(conn: Conn): Promise<void> {
    try {
      this.peer = await admit(conn, this.#settings);
      if (this.#token === undefined) return this.stop();
      this.refusal = new RemoteError("unauthorized", "a token is needed first");
    } catch (error) {
      const { cause } = error as UdsError;
      if (cause !== undefined) this.#settings.onError?.(cause);
      this.#token = undefined;
      this.refusal = new RemoteError("unauthorized", (error as UdsError).message);
    }
  }

  /** Takes its one proof. Gives why that is none. */
  async prove(token: string | undefined): Promise<RemoteError | undefined> {
    if (this.#proving) throw new UdsError("protocol", "a second greeting before the first answer");
    this.#proving = true;
    const proven = await proves(token, this.#token, this.#settings.onError);
    this.#proving = false;
    if (proven) {
      this.stop();
      return this.refusal = undefined;
    }
    if (token === undefined || this.#token === undefined) return this.refusal;
    return new RemoteError("unauthorized", "the token is wrong");
  }

  /** It matters no more. */
  stop(): void {
    clearTimeout(this.#timer);
  }
}
