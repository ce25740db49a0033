/**
 * What a client knows of its server: whether it takes our extensions.
 *
 * @module
 */
import { decodeFailure, TYPE } from "./_extension.ts";
import { decodeServerHello, encodeClientHello } from "./_hello.ts";
import type { ClientSettings } from "./client_options.ts";
import { UdsError } from "./errors.ts";
import { SERVER_DATA, type ServerMsg } from "./message.ts";

/** Who asks. */
interface Asker {
  /** Resolves when something may be sent. */
  ready(): Promise<void> | undefined;
  /** Sends the call of `uds.hello`, and gives its id. */
  send(data: Uint8Array): number;
  /** The server has no more to say of errors that it answered plainly. */
  explained(): void;
}

/** One for each connection. */
export class Greeting {
  /** Whether the server takes our extensions; `undefined` before it has said so. */
  extended: boolean | undefined;
  /** Of the call, while it is not answered. */
  id = -1;
  /** Whether the call was made. */
  asked = false;
  readonly #settings: ClientSettings;
  readonly #asker: Asker;
  readonly #answered = Promise.withResolvers<void>();
  #known: Promise<void> | undefined;
  #soon: Promise<void> | undefined;
  /** It did not answer in time, and may still do so. */
  #mute = false;

  constructor(settings: ClientSettings, asker: Asker) {
    this.#settings = settings;
    this.#asker = asker;
    this.#answered.promise.catch(() => {});
    if (!settings.extensions) this.extended = false;
  }

  /** Resolves when the server has said it, and rejects if it does not let us in. */
  known(): Promise<void> {
    if (this.#known === undefined) {
      this.#known = this.extended === undefined ? this.#ask() : Promise.resolve();
      this.#known.catch(() => {});
    }
    return this.#known;
  }

  /** The same, but no longer than one may wait for a server of the Go package, which does not answer; `undefined` if it is not worth it. */
  soon(): Promise<void> | undefined {
    if (this.extended !== undefined || this.#mute) return undefined;
    if (this.#soon === undefined) {
      this.#soon = this.#wait();
      this.#soon.catch(() => {});
    }
    return this.#soon;
  }

  async #ask(): Promise<void> {
    // The connection may end meanwhile.
    const token = await Promise.race([this.#prepare(), this.#answered.promise]);
    this.id = this.#asker.send(encodeClientHello({ token: token as string | undefined }));
    this.asked = true;
    await this.#answered.promise;
  }

  async #prepare(): Promise<string | undefined> {
    await this.#asker.ready();
    try {
      return await this.#settings.token?.();
    } catch (cause) {
      throw new UdsError("unauthorized", "there is no token", { cause });
    }
  }

  async #wait(): Promise<void> {
    // Its time begins when it may be asked at all.
    await this.#asker.ready();
    let timer: ReturnType<typeof setTimeout> | undefined;
    const late = new Promise<void>((resolve) => {
      timer = setTimeout(resolve, this.#settings.helloTimeoutMs);
    });
    try {
      await Promise.race([this.known(), late]);
    } finally {
      clearTimeout(timer);
    }
    if (this.extended !== undefined) return;
    this.#mute = true;
    this.#asker.explained();
  }

  /** Takes the answer: a server that knows no such handler says so, or nothing. */
  answer({ type, data }: ServerMsg): void {
    this.id = -1;
    this.extended = type === SERVER_DATA && decodeServerHello(data).extensions;
    if (type === TYPE.FAILURE) {
      const [{ code, message }] = decodeFailure(data);
      if (code === "unauthorized") {
        this.#answered.reject(new UdsError("unauthorized", `the server said: ${message}`));
      }
    }
    if (!this.extended && this.#settings.token !== undefined) {
      this.#answered.reject(new UdsError("unauthorized", "the server takes no token"));
    }
    this.#answered.resolve();
    this.#asker.explained();
  }

  /** The connection has ended: there will be no answer. */
  end(error: UdsError): void {
    this.#answered.reject(error);
  }
}
