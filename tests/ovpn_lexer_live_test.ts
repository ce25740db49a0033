/**
 * The lexer rules against a real OpenVPN, whose errors repeat what it has read (spec 1.7). Where there is none all of it is skipped,
 * but not where REQUIRE_OPENVPN is 1, as in CI. LEXER_SEED and LEXER_RUNS change what is tried.
 */
import { assert, assertEquals } from "@std/assert";
import fc from "fast-check";
import { join } from "node:path";
import process from "node:process";
import { after, before, test } from "node:test";
import { type Conn, connect } from "@trunkline/sockets/auto";
import { Demuxer, encodeCommand, MAX_LINE_BYTES } from "@trunkline/sockets/ovpn";
import { clientArgs, type OpenVpn, serverArgs, startOpenVpn } from "../examples/openvpn_process.ts";
import { lexCommand } from "../ovpn/command.ts";
import { byteString, LexerError, parseParameters } from "../ovpn/_lexer.ts";
import { livePlace } from "./ovpn_live_server.ts";

const { openvpn: OPENVPN, directory, namespace } = await livePlace();

const seed = Number(process.env["LEXER_SEED"] ?? 20261121);
const numRuns = Number(process.env["LEXER_RUNS"] ?? 2000);
const encoder = new TextEncoder();
const decoder = new TextDecoder("utf-8", { ignoreBOM: true });

/** An OpenVPN that is told lines, one at a time. */
class Oracle {
  readonly #daemon: OpenVpn;
  readonly #conn: Conn;
  readonly #demuxer = new Demuxer();
  readonly #replies: string[] = [];

  private constructor(daemon: OpenVpn, conn: Conn) {
    this.#daemon = daemon;
    this.#conn = conn;
  }

  static async start(name: string, args: readonly string[]): Promise<Oracle> {
    const path = join(directory.path, name);
    const management = ["--management", path, "unix"];
    const daemon = startOpenVpn(OPENVPN, [...args, ...management], namespace);
    await daemon.logged(/unix domain socket listening/);
    const oracle = new Oracle(daemon, await connect({ path }));
    // It would log each command.
    assertEquals(await oracle.answers("verb 0"), ["SUCCESS: verb level changed"]);
    return oracle;
  }

  async stop(): Promise<void> {
    this.#conn.abort();
    await this.#daemon.stop();
  }

  /** What it says to a line: nothing, one reply, or more. */
  async answers(line: string | Uint8Array): Promise<string[]> {
    const bytes = typeof line === "string" ? encoder.encode(`${line}\n`) : line;
    await this.#conn.write(bytes);
    // Not to wait for what may not come.
    await this.#conn.write(encoder.encode("pid\n"));
    for (const answers: string[] = [];;) {
      const reply = await this.#next();
      if (reply.startsWith("SUCCESS: pid=")) return answers;
      answers.push(reply);
    }
  }

  async #next(): Promise<string> {
    for (;;) {
      const reply = this.#replies.shift();
      if (reply !== undefined) return reply;
      const chunk = await this.#conn.read();
      assert(chunk !== null, "OpenVPN has left");
      for (const { kind, line } of this.#demuxer.push(chunk)) {
        if (kind === "reply") this.#replies.push(decoder.decode(line));
      }
    }
  }
}

/** What means something to a lexer, of any language, and what does not. */
const hostile = fc.constantFrom(
  ...`"'\\ #;>ab$%&|<()[]{}*?!~^=,-0\`/`,
  ...["\\\\", '\\"', "\\'", "\\ ", "\\n", " #", " ;", "  ", '" "', "' '", '"" ', "END"],
  ...["é", "ž", "€", "\u00a0", "\u0085", "\u2028", "\ufeff", "\ufffd", "\u{1f600}", "e\u0301"],
);
const hostileText = (maxLength: number) =>
  fc.array(hostile, { maxLength, size: "max" }).map((it) => it.join(""));

/** As much of `text` as has at most so many bytes. */
function cut(text: string, bytes: number): string {
  const { read } = encoder.encodeInto(text, new Uint8Array(bytes));
  return text.slice(0, read);
}

const withOpenVpn = { skip: OPENVPN === "", timeout: 60_000 };
const withServer = { skip: namespace === undefined, timeout: 60_000 };

let held: Oracle;
let server: Oracle;
before(async () => {
  if (OPENVPN !== "") held = await Oracle.start("held", [...clientArgs(), "--management-hold"]);
  if (namespace !== undefined) server = await Oracle.start("server", serverArgs());
});
after(async () => {
  await held?.stop();
  await server?.stop();
});

/** What a command says of its only parameter; `kill` of at most 127 bytes of it, and of none with a colon. */
const SIGNAL = (text: string) => `ERROR: signal '${text}' is not a known signal type`;
const KILL = (text: string) => `ERROR: common name '${text}' not found`;

test("OpenVPN reads any argument as encodeCommand() was given it", withOpenVpn, async () => {
  const arguments_ = fc.oneof(hostileText(5), hostileText(40), hostileText(256)).map((text) =>
    cut(text, 256)
  );
  await fc.assert(
    fc.asyncProperty(arguments_, async (text) => {
      assertEquals(await held.answers(encodeCommand("signal", text)), [SIGNAL(text)]);
    }),
    { seed, numRuns },
  );
});

test("OpenVPN looks for the client that kill names, whatever that is", withServer, async () => {
  const names = hostileText(60).map((text) => cut(text, 127)).filter((text) => text !== "");
  await fc.assert(
    fc.asyncProperty(names, async (name) => {
      assertEquals(await server.answers(encodeCommand("kill", name)), [KILL(name)]);
    }),
    { seed, numRuns },
  );
});

/** Commands that count their parameters, and how many they want; a held OpenVPN does nothing for any of them. */
const COUNTED: ReadonlyMap<string, number> = new Map([
  ["signal", 1],
  ["needok", 2],
  ["client-deny", 3],
  ["client-pending-auth", 4],
]);

/** Checks what OpenVPN answers to a line against what our lexers read there. */
async function compare(line: Uint8Array): Promise<void> {
  const answers = await held.answers(Uint8Array.of(...line, 0x0a));
  let parameters: string[];
  try {
    parameters = parseParameters(byteString(line));
  } catch (error) {
    assert(error instanceof LexerError);
    assertEquals(answers, [`ERROR: ${error.message}`]);
    assertEquals(lexCommand(decoder.decode(line)).length, 1);
    return;
  }
  assertEquals(lexCommand(decoder.decode(line)), parameters);
  const [name, first = ""] = parameters;
  const wanted = COUNTED.get(name ?? "");
  const tooFew = wanted !== undefined && parameters.length <= wanted;
  if (name === undefined) assertEquals(answers, []);
  else if (wanted === undefined) {
    assertEquals(answers.map((answer) => answer.slice(0, 22)), ["ERROR: unknown command"]);
  } else if (name === "signal" && !tooFew) assertEquals(answers, [SIGNAL(first)]);
  else {
    assertEquals(answers.length, 1);
    assertEquals(answers[0]!.startsWith(`ERROR: the '${name}' command requires`), tooFew);
  }
}

const commands = fc.constantFrom("", ...COUNTED.keys());
/** Without mistakes, so that all of a long line is read. */
const word = fc.constantFrom(
  ...['"a b"', '""', '"\\""', "'c \\ d'", "''", `'"'`, "e\\ f", '\\"', "\\\\", "\\ "],
  ...["g'h", 'i"j', "ž", "k#", "l;", "\\ #", "\\;"],
);
const spaced = fc.tuple(word, fc.constantFrom(" ", " ", "  ", ""));
const sound = fc.array(spaced, { maxLength: 24, size: "max" }).map((it) => it.flat().join(""));
const rest = fc.oneof(sound, hostileText(4), hostileText(12), hostileText(60), hostileText(400));

test("our lexers read any line as OpenVPN does", withOpenVpn, async () => {
  const lines = fc.tuple(commands, fc.constantFrom(" ", "\\ ", '" '), rest)
    .map((parts) => cut(parts.join(""), MAX_LINE_BYTES));
  await fc.assert(
    fc.asyncProperty(lines, (line) => compare(encoder.encode(line))),
    { seed, numRuns: 2 * numRuns },
  );
});

test("our lexers read parameters of any length as OpenVPN does", withOpenVpn, async () => {
  const part = fc.tuple(fc.constantFrom("", '"', "'"), fc.constantFrom("x", "ž", "\\\\", " "));
  const parts = fc.array(fc.tuple(part, fc.integer({ min: 120, max: 260 })), { maxLength: 3 });
  await fc.assert(
    fc.asyncProperty(parts, async (parts) => {
      const texts = parts.map(([[quote, unit], count]) => quote + unit.repeat(count) + quote);
      await compare(encoder.encode(cut(`needok ${texts.join(" ")}`, MAX_LINE_BYTES)));
    }),
    { seed, numRuns: Math.ceil(numRuns / 4) },
  );
});

test("our lexers read what is not UTF-8 as OpenVPN does", withOpenVpn, async () => {
  const bytes = fc.uint8Array({ min: 0x80, max: 0xff, maxLength: 20, size: "max" });
  await fc.assert(
    fc.asyncProperty(bytes, bytes, async (first, second) => {
      await compare(Uint8Array.of(...encoder.encode("signal a"), ...first, 0x20, ...second));
    }),
    { seed, numRuns: Math.ceil(numRuns / 4) },
  );
});
