/**
 * A client of a server that wants to be let in, and what can be decided about it.
 *
 * @module
 */
import type { WaitOptions } from "../adapters/types.ts";

/**
 * Why a client was denied without a decision of the handler, or not answered:
 *
 * - `unsound-env`: its environment has faults, see {@linkcode EnvFault}: what it says of itself cannot be relied on
 * - `handler`: the handler failed; `cause` tells how
 * - `no-decision`: the handler gave nothing, or what is no decision about this very request
 * - `timeout`: there was no decision in time
 * - `too-many`: more requests than `maxWaiting` waited for the handler
 * - `unreadable-response`: the client's answer to a question is not base64 of UTF-8
 * - `not-sent`: OpenVPN did not take the answer, or did not say so in time, or it waited too long to be sent; `cause` is a {@linkcode ManagementError}
 */
export type AuthErrorCode =
  | "unsound-env"
  | "handler"
  | "no-decision"
  | "timeout"
  | "too-many"
  | "unreadable-response"
  | "not-sent";

/** A request was not answered as the handler wanted. No message holds what a client said; a `cause` of the handler's is as it was thrown. */
export class AuthError extends Error {
  /** The name of the class. */
  override readonly name: string = "AuthError";
  /** What went wrong; see {@linkcode AuthErrorCode}. */
  readonly code: AuthErrorCode;

  /** Makes an error; `options.cause` is the original one. */
  constructor(code: AuthErrorCode, message: string, options?: ErrorOptions) {
    super(message, options);
    this.code = code;
  }
}

/** A decision, made by a request and good for that one alone. It shows nothing of what is in it. */
export interface AuthDecision {
  /** Which of the two. */
  readonly kind: "accept" | "deny";
}

/** A question that is asked by denying: the client logs in again, with the answer as its password. */
export interface DynamicChallengeOptions {
  /** The question. */
  readonly text: string;
  /** Comes back with the answer, in {@linkcode ClientAuthRequest.dynamicResponse}. Secret; of one character or more, none of them a colon. */
  readonly stateId: string;
  /** Whether the answer may be seen while it is typed. @default false */
  readonly echo?: boolean | undefined;
  /** Whether there is an answer, or only a text to be read. @default true */
  readonly responseRequired?: boolean | undefined;
  /** Whom it asks. @default the request's username */
  readonly username?: string | undefined;
  /** For OpenVPN's log. @default "challenge" */
  readonly reason?: string | undefined;
}

/** What a client is to do while it waits. The methods that it knows are in {@linkcode ClientAuthRequest.sso}. */
export type PendingStep =
  | {
    /** Log in with a browser. */
    readonly kind: "WEB_AUTH";
    /** Where: `http:` or `https:`. */
    readonly url: string;
    /** How to show it: `external`, `hidden`. @default none */
    readonly flags?: readonly string[] | undefined;
  }
  | {
    /** The older form of it, `openurl`. */
    readonly kind: "OPEN_URL";
    /** Where: `http:` or `https:`. */
    readonly url: string;
  }
  | {
    /** Answer a question, see {@linkcode ClientAuthRequest.response}. */
    readonly kind: "CR_TEXT";
    /** The question. */
    readonly text: string;
    /** Whether the answer may be seen while it is typed. @default false */
    readonly echo?: boolean | undefined;
    /** Whether there is an answer, or only a text to be read. @default true */
    readonly responseRequired?: boolean | undefined;
  };

/** Options of {@linkcode ClientAuthRequest.pending}. */
export interface PendingOptions extends WaitOptions {
  /**
   * How long the client and the handler have from now on, in milliseconds. The client is told 5 seconds more, so that it still hears a decision
   * of the last moment. @default what is left
   */
  readonly timeoutMs?: number | undefined;
}

/**
 * A client that wants to be let in (`CONNECT`) or to stay (`REAUTH`). `console.log` and `JSON.stringify` show its names, and no secret.
 */
export interface ClientAuthRequest {
  /** Which of the two. */
  readonly kind: "CONNECT" | "REAUTH";
  /** The CID. After a restart of OpenVPN another client has it. */
  readonly clientId: string;
  /** The KID. */
  readonly keyId: string;
  /** What OpenVPN and the client tell of it, without faults. Much of it is the client's choice. */
  readonly env: ReadonlyMap<string, string>;
  /** By its certificate. */
  readonly commonName: string | undefined;
  /** As it was typed. */
  readonly username: string | undefined;
  /** As it was sent, a secret: with a challenge it is `SCRV1:...` or `CRV1:...`, see below. */
  readonly password: string | undefined;
  /** Password and answer, if it logs in with a static challenge. Secret. */
  readonly staticResponse:
    | {
      /** The password itself. */
      readonly password: string;
      /** The answer to the question of the client's configuration. */
      readonly response: string;
    }
    | undefined;
  /** The answer to {@linkcode ClientAuthRequest.challenge}. Secret. */
  readonly dynamicResponse:
    | {
      /** The one that was given with the question. A client can write anything here. */
      readonly stateId: string;
      /** The answer. */
      readonly response: string;
    }
    | undefined;
  /** The methods of {@linkcode ClientAuthRequest.pending} that the client says it knows (`IV_SSO`): `webauth`, `openurl`, `crtext`. */
  readonly sso: ReadonlySet<string>;
  /** Fires when no decision is waited for any more: the client left, OpenVPN restarted, the time is over. */
  readonly signal: AbortSignal;

  /**
   * Lets it in, with `config`: lines as `client-connect` would write them, such as `push "route 10.9.0.0 255.255.0.0"`. When it stays,
   * OpenVPN ignores them.
   *
   * @throws {TypeError} if a line has control characters or is `END`
   * @throws {RangeError} if a line has more than {@linkcode MAX_CONFIG_LINE_BYTES} bytes
   */
  accept(config?: readonly string[]): AuthDecision;

  /**
   * Refuses it. `reason` is for OpenVPN's log, `clientReason` is sent to the client.
   *
   * @throws {TypeError} if one has control characters
   * @throws {RangeError} if one has more than {@linkcode MAX_ARGUMENT_BYTES} bytes, or both are too long for a line
   */
  deny(reason: string, clientReason?: string): AuthDecision;

  /**
   * Refuses it with a question (`CRV1:`). It comes again as a new request, maybe another client in the meantime: keep what belongs to `stateId`.
   *
   * @throws {TypeError} for a `stateId` that is none, and as `deny`
   * @throws {RangeError} if it is longer than {@linkcode MAX_ARGUMENT_BYTES} all in all
   */
  challenge(options: DynamicChallengeOptions): AuthDecision;

  /**
   * Tells the client what else to do; the decision is still to be made. May be called more than once.
   *
   * @throws {TypeError} for a url that is not `http:` or `https:`, a flag that is no word, control characters
   * @throws {RangeError} if the step has more than {@linkcode MAX_PENDING_EXTRA_BYTES} bytes: the client would drop it without a word
   * @throws {ManagementError} `command`: OpenVPN refused it; `timeout`: it did not say in time that it took it, which decides nothing yet if
   * the connection is kept (`onTimeout: "keep"`); `aborted`, `stale`: nobody waits for it any more
   */
  pending(step: PendingStep, options?: PendingOptions): Promise<void>;

  /**
   * Waits for the client's answer to a `CR_TEXT`. Answers that come unasked are thrown away, and so is a second one that comes before the
   * first is taken.
   *
   * @throws {AuthError} `unreadable-response`
   * @throws {ManagementError} `aborted`: nobody waits for it any more, or by `signal`
   */
  response(options?: WaitOptions): Promise<string>;
}
