/** The simulated OpenVPN against recordings of the real one: the same commands, the same causes, line by line the same answers. */
import { assert, assertEquals } from "@std/assert";
import { test } from "node:test";
import { connPair } from "@trunkline/sockets/auto";
import {
  type Recording,
  simulateDaemon,
  type SimulatedClient,
  type SimulatedDaemon,
  type SimulatorOptions,
  type Wanted,
} from "@trunkline/sockets/ovpn/testing";
import { readDialogue } from "./ovpn_recordings.ts";

const decoder = new TextDecoder();
const NOW = 1795220000;

/** A manager may have written before it read: what OpenVPN says unasked comes first here. */
function greetingFirst(recording: Recording): Recording {
  const index = recording.findIndex(({ from, end }) => from === "daemon" && !end);
  const next = recording.findIndex(({ from, end }, at) =>
    at > index && (end || from === "manager")
  );
  const parts = recording.slice(index, next < 0 ? undefined : next);
  const text = parts.map(({ bytes }) => decoder.decode(bytes)).join("");
  const [unasked = ""] = /^(?:>[^\n]*\n)+/.exec(text) ?? [];
  const step = (text: string) =>
    ({ from: "daemon", at: 0, bytes: new TextEncoder().encode(text) }) as const;
  const asked = step(text.slice(unasked.length));
  return [step(unasked), ...recording.toSpliced(index, parts.length, asked)];
}

/** What is never the same, or not simulated. */
const ALWAYS_IGNORED = /^>(?:LOG:|CLIENT:ENV,|UPDOWN:ENV,)|^1795\d+,[IFNWD]*,(?!MANAGEMENT: CMD)/;

function normal(line: string): string {
  return line
    .replace(/\b1795\d{6}\b/g, "TIME")
    .replace(/\d{4}-\d\d-\d\d \d\d:\d\d:\d\d/g, "DATE")
    .replace(/pid=\d+/, "pid=PID")
    // How much has passed by then is not in the recording.
    .replace(/[,\t]\d+([,\t])\d+(?=[,\t]DATE)/, "$1IN$1OUT")
    .replace(/(queue length.)\d+/, "$1N")
    .replace(/bytesin=\d+,bytesout=\d+/, "bytesin=IN,bytesout=OUT")
    .replace(/library versions: .*/, "LIBRARIES");
}

/** Whole lines; the prompt, which has no end, counts as one. */
class Lines {
  readonly lines: string[] = [];
  readonly #ignored: RegExp | undefined;
  #rest = "";

  constructor(ignored: RegExp | undefined) {
    this.#ignored = ignored;
  }

  push(text: string): void {
    const parts = (this.#rest + text.replaceAll("ENTER PASSWORD:", "ENTER PASSWORD:\n")).split(
      "\n",
    );
    this.#rest = parts.pop()!;
    for (const part of parts) {
      const line = part.replace(/\r$/, "");
      if (ALWAYS_IGNORED.test(line) || this.#ignored?.test(line)) continue;
      this.lines.push(normal(line));
    }
  }
}

interface Play extends SimulatorOptions {
  /** Lines that the simulator does not have, and why. */
  readonly ignored?: RegExp;
}

/** Makes happen what happened in a recording. */
class Director {
  readonly #daemon: SimulatedDaemon;
  readonly #server: boolean;
  readonly #clients = new Map<string, SimulatedClient>();

  constructor(daemon: SimulatedDaemon, server: boolean) {
    this.#daemon = daemon;
    this.#server = server;
  }

  /** `line` comes next, then `rest`; `command` was the last one. */
  cause(line: string, rest: string, command: string): void {
    const daemon = this.#daemon;
    const [, keyword = "", body = ""] = /^>([A-Z_-]+):(.*)$/.exec(line) ?? [];
    const fields = body.split(",");
    const ignore = (promise: Promise<unknown>) => void promise.catch(() => {});
    if (keyword === "STATE" && !this.#server && !/,(?:SIG(?:USR1|HUP|TERM)),/.test(body)) {
      const [, name = "", ...more] = fields;
      daemon.state(name, ...more);
    } else if (keyword === "PASSWORD" && body.startsWith("Need")) {
      const match = /^Need '(.*)' ([a-z/]+)(?: SC:(\d),(.*))?$/.exec(body);
      const [, name = "", wants = "", flags, text = ""] = match ?? [];
      const bits = Number(flags);
      const challenge = { text, echo: (bits & 1) > 0, concat: (bits & 2) > 0 };
      ignore(daemon.askPassword(name, {
        wants: wants as Wanted,
        challenge: flags === undefined ? undefined : challenge,
      }));
    } else if (keyword === "PASSWORD" && body.startsWith("Verification")) {
      const [, name = "", reason] = /'(.*?)'(?: \['(.*)'\])?$/.exec(body) ?? [];
      daemon.verificationFailed(name, reason);
    } else if (["PASSWORD", "INFOMSG", "NOTIFY"].includes(keyword)) daemon.send(line);
    else if (keyword === "ECHO") daemon.echo(fields.slice(1).join(","));
    else if (keyword === "BYTECOUNT") daemon.byteCount(Number(fields[0]), Number(fields[1]));
    else if (keyword === "UPDOWN" && !body.startsWith("ENV")) daemon.upDown(body as "UP" | "DOWN");
    else if (keyword === "NEED-OK" || keyword === "NEED-STR") {
      const [, name = "", text = ""] = /^Need '(.*)' \w+ MSG:(.*)$/.exec(body) ?? [];
      ignore(keyword === "NEED-OK" ? daemon.needOk(name, text) : daemon.needStr(name, text));
    } else if (keyword === "NEED-CERTIFICATE") ignore(daemon.needCertificate(body));
    else if (keyword === "PK_SIGN" || keyword === "RSA_SIGN") {
      const data = Uint8Array.from(atob(fields[0]!), (character) => character.charCodeAt(0));
      ignore(daemon.sign(data, fields.slice(1).join(",")));
    } else if (keyword === "REMOTE") ignore(daemon.askRemote(body));
    else if (keyword === "PROXY") ignore(daemon.askProxy(body));
    else if (keyword === "FATAL" && command !== "signal SIGUSR1") daemon.fatal(body);
    else if (keyword === "CLIENT" || keyword === "BYTECOUNT_CLI") {
      this.#client(keyword, fields, rest, command);
    }
  }

  #client(keyword: string, fields: string[], rest: string, command: string): void {
    const [kind = "", id = ""] = keyword === "CLIENT" ? fields : ["BYTES", ...fields];
    const env = (name: string) => new RegExp(`^>CLIENT:ENV,${name}=(.*)$`, "m").exec(rest)?.[1];
    const pool = (v6: boolean) =>
      new RegExp(`^>CLIENT:ADDRESS,${id},([^,:/]${v6 ? "*:" : ""}[^,/]*),1$`, "m").exec(rest)?.[1];
    if (kind === "CONNECT" || (kind === "ESTABLISHED" && !this.#clients.has(id))) {
      this.#clients.set(
        id,
        this.#daemon.clientConnects({
          commonName: env("common_name") ?? env("X509_0_CN") ?? "",
          username: env("username") || undefined,
          password: env("password"),
          address: env("untrusted_ip"),
          port: Number(env("untrusted_port")) || undefined,
          virtualAddress: pool(false) ?? env("ifconfig_pool_remote_ip"),
          virtualAddress6: pool(true) ?? env("ifconfig_pool_remote_ip6"),
          pushUpdate: env("IV_VER") !== "2.6.14",
        }),
      );
    } else if (kind === "REAUTH") void this.#clients.get(id)!.reauth();
    else if (kind === "CR_RESPONSE") this.#clients.get(id)!.respond(fields[3]!);
    else if (kind === "BYTES") this.#clients.get(id)?.traffic(Number(fields[1]), Number(fields[2]));
    else if (kind === "DISCONNECT" && !/^(?:kill|client-kill|signal)/.test(command)) {
      this.#clients.get(id)!.disconnects();
    }
    if (kind === "DISCONNECT") this.#clients.delete(id);
  }
}

/** Plays the manager of a recording to a simulator, and gives both sets of lines. */
async function play(name: string, { ignored, ...options }: Play): Promise<[string[], string[]]> {
  const recording = greetingFirst(readDialogue(name));
  const daemon = simulateDaemon({ now: () => NOW, ...options });
  const [ours, theirs] = connPair();
  const [expected, actual] = [new Lines(ignored), new Lines(ignored)];
  let wake = () => {};
  let ended = false;
  const reading = (async () => {
    for (;;) {
      const chunk = await ours.read().catch(() => null);
      if (chunk === null) break;
      actual.push(decoder.decode(chunk));
      wake();
    }
    ended = true;
    wake();
    await ours.close().catch(() => {});
  })();
  // Once it lags behind it differs, which is told at the end.
  let stuck = false;
  const caughtUp = async () => {
    const behind = () => actual.lines.length < expected.lines.length && !ended && !stuck;
    while (behind()) {
      const changed = Promise.withResolvers<void>();
      wake = changed.resolve;
      const timer = setTimeout(() => (stuck = true, wake()), 2000);
      await changed.promise;
      clearTimeout(timer);
    }
  };
  const director = new Director(daemon, options.mode === "server");
  const served = daemon.serve(theirs);
  const daemonText = recording.map((step) =>
    step.from === "daemon" && !step.end ? decoder.decode(step.bytes) : ""
  );
  let carry = "";
  let command = "";
  for (const [index, step] of recording.entries()) {
    if (step.end) break;
    if (step.from === "manager") {
      await caughtUp();
      command = decoder.decode(step.bytes).trimEnd();
      await ours.write(step.bytes!).catch(() => {});
      // Not every command is answered; what comes next may depend on it.
      await new Promise((resolve) => setTimeout(resolve, 1));
      continue;
    }
    const parts = (carry + daemonText[index]).split(/(?<=\n)/);
    carry = parts.at(-1)!.endsWith("\n") ? "" : parts.pop()!;
    if (carry === "ENTER PASSWORD:") parts.push(carry), carry = "";
    for (const [part, line] of parts.entries()) {
      const rest = parts.slice(part + 1).join("") + carry + daemonText.slice(index + 1).join("");
      director.cause(line.trimEnd(), rest, command);
      expected.push(line);
      if (expected.lines.length > 0) await caughtUp();
    }
  }
  await caughtUp();
  if (recording.at(-1)?.end && recording.at(-2)?.from === "manager") await served;
  await Promise.all([daemon.close(), reading]);
  return [actual.lines, expected.lines];
}

/** Help is for people; `state all` tells states that were entered before anybody listened. */
const HELP =
  /^Management Interface for|^Commands:|^[a-z].* : |^[a-z-].*: [A-Z]|^ {20}|^[a-z0-9-]+$/;

/** The token of a recording. */
function identities(name: string): { id: string; blob: string }[] {
  const text = readDialogue(name).filter(({ from, end }) => from === "daemon" && !end)
    .map(({ bytes }) => decoder.decode(bytes)).join("");
  const entries = text.matchAll(/^>PKCS11ID-ENTRY:'\d+', ID:'(.*)', BLOB:'(.*)'\r$/gm);
  return Array.from(entries, ([, id = "", blob = ""]) => ({ id, blob }));
}

const PLAYS: Readonly<Record<string, Play>> = {
  "client-auth-user-pass": {},
  "client-dynamic-challenge": {},
  "client-pending-auth": { hold: true },
  "client-private-key": {},
  "client-static-challenge": {},
  "external-key-pk-sign": {},
  "exit-loses-replies": { mode: "server" },
  "hold-basics": { hold: true, ignored: HELP },
  "lexer-and-errors": { hold: true },
  "management-client": { hold: true },
  "oversize-line": { hold: true },
  pipelined: { hold: true },
  pkcs11: { pkcs11: identities("pkcs11") },
  "pkcs11-token-missing": {},
  "query-proxy": {},
  "query-proxy-bad-answer": {},
  "query-remote": {
    remotes: [
      "127.0.0.9,4444,udp4",
      "vpn2.lab.invalid,1194,udp4",
      "127.0.0.1,443,tcp4-client",
    ],
  },
  "second-client-first": { hold: true },
  "second-client-second": { hold: true },
  // Networks behind alice; a killed client leaves at once here, not after seconds.
  "server-client-auth": {
    mode: "server",
    ignored: /^>CLIENT:ADDRESS.*,0$|^(?:ROUTING_TABLE.)?(?:10\.|fd00:)|:DISCONNECT|_CLI:0,5415/,
  },
  // The refused ones leave when the third one is accepted.
  "server-dynamic-challenge": { mode: "server", ignored: /:DISCONNECT/ },
  "server-env-filter": { mode: "server" },
  // As above; the server counts peers beside CIDs.
  "server-kill": { mode: "server", ignored: /:DISCONNECT|^CLIENT_LIST,alice/ },
  "server-pending-auth": { mode: "server" },
  // This server has an IPv6 address.
  "server-plain": { mode: "server", clientAuth: false, ignored: /^\d+,.*,10\.8\.0\.1,/ },
  // The port is filtered out of the variables.
  "cid-reuse-after-restart": { mode: "server", ignored: /bob smith/ },
  // The DOWN of a restart is told before its STATE; its exit is announced to the server first.
  signals: { hold: true, ignored: /^>UPDOWN:|,EXITING,|^>BYTECOUNT:6287/ },
  "tcp-password": { hold: true, password: "correct horse" },
  "tcp-password-three-wrong": { password: "right" },
  "v27-basics": { hold: true, version: "2.7.6", ignored: HELP },
  "v27-client": { hold: true, version: "2.7.6" },
  "v27-multiline-password": { version: "2.7.6" },
  // The order of clients is that of a hash table.
  "v27-server": { mode: "server", version: "2.7.6", ignored: /alice.udp4:|^>BYTECOUNT_CLI/ },
  "v27-static-challenge-concat": { version: "2.7.6" },
};

for (const [name, options] of Object.entries(PLAYS)) {
  test(`the simulator answers as recorded in ${name}`, async () => {
    const [actual, expected] = await play(name, options);
    assertEquals(actual, expected);
    assert(actual.length > 0);
  });
}
