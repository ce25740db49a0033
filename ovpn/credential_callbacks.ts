/**
 * What `provideCredentials` asks.
 *
 * @module
 */
import type { Answer } from "./_answering.ts";
import type { AnswerError } from "./answer_error.ts";
import type { StaticChallenge } from "./event_password.ts";

/** What every callback is told. */
export interface AnswerRequest {
  /** What is asked for, in OpenVPN's words: `Auth`, `Private Key`, `HTTP Proxy`, `token-insertion-request`, `CR_TEXT`. */
  readonly name: string;
  /** A text for people; empty if there is none. */
  readonly message: string;
  /** 1, and one more for each time that an answer for this name was refused since OpenVPN was connected. */
  readonly attempt: number;
  /** Why the last one was refused, if the server said so. */
  readonly reason: string | undefined;
  /** Fires when the answer is not waited for any more. */
  readonly signal: AbortSignal;
}

/** For username and password of the VPN. */
export interface LoginRequest extends AnswerRequest {
  /** A question that is to be answered by `response`; its text is also the `message`. */
  readonly challenge: StaticChallenge | undefined;
}

/** A question of a server. */
export interface QuestionRequest extends AnswerRequest {
  /** Whether the answer may be seen while it is typed. */
  readonly echo: boolean;
  /** Whether there is an answer; if not, anything but `undefined` confirms that the text was read. */
  readonly responseRequired: boolean;
}

/** A question by which a server refused a password. */
export interface ChallengeRequest extends QuestionRequest {
  /** Whom it asks. */
  readonly username: string;
}

/** To log in with a browser. */
export interface WebAuthRequest extends AnswerRequest {
  /** Of `WEB_AUTH`: `hidden`, `external`, `proxy=...`. They are not shown by `console.log`, like the url. */
  readonly flags: readonly string[];
  /** Where to: `http:` or `https:`. The server chose it, and it is a secret. */
  readonly url: string;
}

/** A username and its password. */
export interface Login {
  /** The name; OpenVPN writes it into its log. */
  readonly username: string;
  /** The password. */
  readonly password: string;
}

/** A username, its password, and the answer to a question. */
export interface LoginAnswer extends Login {
  /** To be given if there is a `challenge`. */
  readonly response?: string | undefined;
}

/**
 * What to answer; `undefined` for nothing. A request without a callback is not answered either.
 */
export interface CredentialCallbacks {
  /** `Need 'Auth' username/password`, with and without a static challenge. */
  auth?(request: LoginRequest): Answer<LoginAnswer>;
  /** `Need '...' username`: a name alone (OpenVPN 2.7). */
  username?(request: AnswerRequest): Answer<string>;
  /** `Need 'HTTP Proxy' username/password` and `Need 'SOCKS Proxy' ...`; `name` tells which. */
  proxy?(request: AnswerRequest): Answer<Login>;
  /** `Need 'Private Key' password`. */
  privateKey?(request: AnswerRequest): Answer<string>;
  /** `Need '<label> token' password`: the PIN of a PKCS#11 token. */
  pin?(request: AnswerRequest): Answer<string>;
  /** A dynamic challenge: the next answer to `Need 'Auth' username/password` is made of what this gives. */
  challenge?(request: ChallengeRequest): Answer<string>;
  /** `INFOMSG` `CR_TEXT`. */
  question?(request: QuestionRequest): Answer<string>;
  /** `INFOMSG` `WEB_AUTH` and `OPEN_URL`: opens the page. Its `signal` fires later than it returns: when the login is over. */
  webAuth?(request: WebAuthRequest): void | Promise<void>;
  /** `NEED-OK`: `true` for `ok`, `false` for `cancel`. */
  needOk?(request: AnswerRequest): Answer<boolean>;
  /** `NEED-STR`. */
  needStr?(request: AnswerRequest): Answer<string>;
  /** Hears of what was not answered, since OpenVPN waits for it all the same. What it throws is ignored. */
  onError(error: AnswerError): void;
}
