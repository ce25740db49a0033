/**
 * Why something that OpenVPN asks for was not answered.
 *
 * @module
 */

/**
 * What went wrong:
 *
 * - `no-callback`: there is nothing to answer this request with
 * - `unanswered`: the callback gave no answer
 * - `callback`: the callback failed; `cause` tells how
 * - `invalid-answer`: the callback's answer cannot be sent; `cause` tells why, if it is the line to OpenVPN that it does not fit into
 * - `unsupported-key`: no key can make this signature
 * - `unsafe-url`: a page to be opened that is not `http:` or `https:`
 * - `unreadable-challenge`: a server's question (`CRV1:`) that has not all its parts
 * - `not-sent`: the answer could not be sent, or was refused; `cause` is a {@linkcode ManagementError}
 */
export type AnswerErrorCode =
  | "no-callback"
  | "unanswered"
  | "callback"
  | "invalid-answer"
  | "unsupported-key"
  | "unsafe-url"
  | "unreadable-challenge"
  | "not-sent";

/** A request of OpenVPN was not answered: it still waits. No message holds an answer. */
export class AnswerError extends Error {
  /** The name of the class. */
  override readonly name: string = "AnswerError";
  /** What went wrong; see {@linkcode AnswerErrorCode}. */
  readonly code: AnswerErrorCode;

  /** Makes an error; `options.cause` is the original one. */
  constructor(code: AnswerErrorCode, message: string, options?: ErrorOptions) {
    super(message, options);
    this.code = code;
  }
}
