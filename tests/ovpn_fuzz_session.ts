/** What must hold of a session, whatever the other side is and does. */
import { assert, assertEquals } from "@std/assert";
import { concat } from "@std/bytes";
import { type Conn, connPair } from "@trunkline/sockets/auto";
import {
  AnswerError,
  type AuthDecision,
  ClientTable,
  ManagementClient,
  ManagementError,
  type ManagementEvent,
  provideCredentials,
  serveAuth,
} from "@trunkline/sockets/ovpn";
import { simulateDaemon } from "@trunkline/sockets/ovpn/testing";
import { fuzzedChunks, fuzzedText, fuzzedWire, type Luck } from "./ovpn_fuzz.ts";
import { contentOf, eventsOf, linesOf } from "./ovpn_fuzz_wire.ts";
import { GREETING } from "./ovpn_fake.ts";

/** Nothing takes as long when all that it could wait for is over. */
const HANG_MS = 10_000;
const ENCODER = new TextEncoder();
const DECODER = new TextDecoder();
const UNBOUNDED = 1_000_000;

async function settled<T>(what: string, promise: Promise<T>): Promise<T> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${what}: still pending`)), HANG_MS);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}

/** What an engine says of a mistake in our code, and not of one in an argument. */
const OUR_MISTAKE =
  /undefined|null|not a function|not an object|not iterable|Cannot |Invalid |must be /;

function assertTyped(error: unknown): void {
  if (error instanceof ManagementError || error instanceof AnswerError) return;
  const isRefusal = error instanceof TypeError || error instanceof RangeError;
  if (!isRefusal || OUR_MISTAKE.test(error.message)) {
    throw new Error(`an error that is not documented: ${error}`, { cause: error });
  }
}

type Call = (
  client: ManagementClient,
  luck: Luck,
  signal: AbortSignal | undefined,
) => Promise<unknown>;
const IDS = [{ clientId: 0, keyId: 1 }, { clientId: "1", keyId: 0n }];
const ALLOW = ["unannounced-client", "not-asked", "proxy-fails-open"] as const;

const CALLS: readonly Call[] = [
  (it, _, signal) => it.pid({ signal }),
  (it, _, signal) => it.state({ signal }),
  (it, _, signal) => it.stateHistory("all", { signal }),
  (it, luck, signal) => it.followStates(luck.below(5), { signal }),
  (it, _, signal) => it.logHistory("all", { signal }),
  (it, _, signal) => it.followLog(3, { signal }),
  (it, _, signal) => it.echoHistory("all", { signal }),
  (it, _, signal) => it.status({ signal }),
  (it, _, signal) => it.version({ signal }),
  (it, luck, signal) => it.setVersion(luck.below(9), { signal }),
  (it, _, signal) => it.loadStats({ signal }),
  (it, _, signal) => it.hold({ signal }),
  (it, _, signal) => it.verb({ signal }),
  (it, _, signal) => it.authRetry({ signal }),
  (it, _, signal) => it.setEnvFilter(1, { signal }),
  (it, _, signal) => it.help({ signal }),
  (it, _, signal) => it.setByteCountEvents(1, { signal }),
  (it, luck, signal) => it.sendSignal(luck.pick(["SIGUSR1", "SIGHUP"]), { signal }),
  (it, luck, signal) => it.sendPassword("Auth", fuzzedText(luck), { signal }),
  (it, luck, signal) => it.needStr(fuzzedText(luck), fuzzedText(luck), { signal }),
  (it, luck, signal) => it.kill(fuzzedText(luck), { signal }),
  (it, _, signal) =>
    it.killAddress({ protocol: "udp4", address: "192.0.2.1", port: 1 }, { signal }),
  (it, luck, signal) =>
    it.clientAuth(luck.pick(IDS), luck.times(3, () => fuzzedText(luck)), { signal, allow: ALLOW }),
  (it, luck, signal) =>
    it.clientDeny(luck.pick(IDS), fuzzedText(luck), fuzzedText(luck), { signal, allow: ALLOW }),
  (it, luck, signal) =>
    it.clientPendingAuth(luck.pick(IDS), "CR_TEXT:R:x", 10, { signal, allow: ALLOW }),
  (it, _, signal) => it.clientKill(0, undefined, { signal, allow: ALLOW }),
  (it, _, signal) => it.clientCount({ signal }),
  (it, _, signal) => it.pushUpdateBroad("-dns", { signal }),
  (it, _, signal) => it.remoteEntryCount({ signal }),
  (it, _, signal) => it.remoteEntries("all", { signal }),
  (it, _, signal) => it.proxy({ type: "NONE" }, { signal }),
  (it, _, signal) => it.pkcs11Ids({ signal }),
  (it, _, signal) => it.pkSign("QUFB", { signal, allow: ALLOW }),
  (it, luck, signal) => it.command(fuzzedText(luck), { signal }),
  (it, luck, signal) => it.command(`test ${luck.below(4)}`, { signal }),
  (it, _, signal) => it.command("exit", { signal }),
];

/** Reads events, all of them or some. */
async function read(
  events: AsyncIterable<ManagementEvent>,
  count = Infinity,
): Promise<{ readonly events: ManagementEvent[]; readonly error?: unknown }> {
  const read: ManagementEvent[] = [];
  try {
    if (count > 0) { for await (const event of events) if (read.push(event) >= count) break; }
  } catch (error) {
    assert(error instanceof ManagementError && error.code === "overflow", String(error));
    return { events: read, error };
  }
  return { events: read };
}

const REPLIES: ReadonlyMap<string, string> = new Map([
  ["pid", "SUCCESS: pid=7\r\n"],
  ["state", "1700000000,CONNECTED,SUCCESS,10.8.0.2,192.0.2.1,1194,,\r\nEND\r\n"],
  ["log", "1700000000,I,text\r\nEND\r\n"],
  ["echo", "END\r\n"],
  ["status", "TITLE\tx\r\nTIME\tx\t1700000000\r\nEND\r\n"],
  ["version", "OpenVPN Version: OpenVPN 2.6.14 x\r\nManagement Version: 5\r\nEND\r\n"],
  ["hold", "SUCCESS: hold=1\r\n"],
  ["verb", "SUCCESS: verb=3\r\n"],
  ["load-stats", "SUCCESS: nclients=1,bytesin=2,bytesout=18446744073709551615\r\n"],
  ["kill", "SUCCESS: common name 'x' found, 1 client(s) killed\r\n"],
  ["nclients", "SUCCESS: nclients=3\r\n"],
  ["remote-entry-count", "2\r\nEND\r\n"],
  ["remote-entry-get", "0,vpn.example,1194,udp,enabled\r\nEND\r\n"],
  ["pkcs11-id-count", ">PKCS11ID-COUNT:1\r\n"],
  ["pkcs11-id-get", ">PKCS11ID-ENTRY:'0', ID:'a', BLOB:'QUFB'\r\n"],
]);

/** Answers commands, mostly as OpenVPN would. */
async function answer(conn: Conn, luck: Luck, say: (text: string) => void): Promise<void> {
  const isHelpful = luck.oneIn(2);
  let heard = "";
  try {
    for (let chunk; (chunk = await conn.read()) !== null;) {
      heard += DECODER.decode(chunk);
      const lines = heard.split("\n");
      heard = lines.pop()!;
      for (const line of lines) {
        const reply = REPLIES.get(line.split(" ", 1)[0]!) ?? "SUCCESS: done\r\n";
        if (isHelpful && !luck.oneIn(9)) say(luck.oneIn(9) ? "ERROR: no\r\n" : reply);
      }
    }
  } catch {
    // Whoever is at the other end has left.
  }
}

/** Whoever uses the session in other ways than by its commands. */
function attend(client: ManagementClient, luck: Luck): Promise<unknown>[] {
  const decide = luck.pick<Parameters<typeof serveAuth>[1]>([
    (request) => request.accept(['push "x"']),
    (request) => request.deny("no", fuzzedText(luck)),
    () => Promise.reject(new Error("of the application")),
    async (request) => {
      await request.pending({ kind: "CR_TEXT", text: "?" });
      return request.accept();
    },
    ({ signal }) =>
      new Promise<AuthDecision>((_, reject) => {
        signal.addEventListener("abort", () => reject(signal.reason));
      }),
  ]);
  const server = serveAuth(client, decide);
  const text = () => fuzzedText(luck);
  const answering = provideCredentials(client, {
    auth: () => ({ username: text(), password: text(), response: text() }),
    privateKey: text,
    challenge: text,
    question: text,
    webAuth: () => {},
    needOk: () => true,
    needStr: text,
    onError: assertTyped,
  });
  const table = new ClientTable(client, { refreshMs: 60_000, settleMs: 1 });
  return [
    server.closed,
    answering.closed,
    table.closed,
    table.refresh(),
    Array.fromAsync(table.changes),
  ];
}

/** A session with a daemon that says anything: all that waits comes to its end, and all events are told. */
export async function survives(luck: Luck): Promise<void> {
  const fuzzed = fuzzedWire(luck);
  const bytes = luck.oneIn(6) ? fuzzed : concat([ENCODER.encode(GREETING), fuzzed]);
  const [ours, theirs] = connPair();
  const maxEnvBytes = luck.pick([60, 262_144]);
  const maxBufferedEvents = luck.pick([1, 20, UNBOUNDED, UNBOUNDED]);
  const client = new ManagementClient(ours, {
    ...{ maxEnvBytes, maxBufferedEvents, timeoutMs: 60_000, closeTimeoutMs: 10 },
    maxReplyBytes: luck.pick([100, 1_000_000, 1_000_000, 1_000_000]),
    password: luck.pick([undefined, "secret", () => fuzzedText(luck)]),
  });
  const outcomes: Promise<unknown>[] = [client.ready.catch(assertTyped)];
  const reading = read(client.events);
  for (let left = luck.below(3); left > 0; left--) {
    outcomes.push(read(client.events, luck.below(9)));
  }
  if (luck.oneIn(4)) outcomes.push(...attend(client, luck).map((it) => it.catch(assertTyped)));
  const stop = new AbortController();
  const call = () => {
    const signal = luck.oneIn(5) ? stop.signal : undefined;
    outcomes.push(luck.pick(CALLS)(client, luck, signal).catch(assertTyped));
  };
  for (let left = luck.below(8); left > 0; left--) call();
  const sent: Uint8Array[] = [];
  const say = (bytes: Uint8Array) => {
    sent.push(bytes);
    return theirs.write(bytes).catch(() => {});
  };
  const answering = answer(theirs, luck, (text) => void say(ENCODER.encode(text)));
  const chunks = fuzzedChunks(luck, bytes);
  const once = (times: number) => luck.oneIn(times) ? luck.below(chunks.length) : -1;
  const [closeAt, abortAt] = [once(5), once(3)];
  for (const [at, chunk] of chunks.entries()) {
    if (luck.below(chunks.length) < 5) call();
    if (at === abortAt) stop.abort();
    if (at === closeAt) outcomes.push(client.close());
    await say(chunk);
  }
  const broken = luck.oneIn(4);
  if (broken) theirs.abort();
  else await theirs.close().catch(() => {});
  const closed = client.closed.then(() => "in order", (error: ManagementError) => error.code);
  const end = await settled("closed", closed);
  await settled("commands, readers and helpers", Promise.all(outcomes));
  await answering;
  const { events, error } = await settled("events", reading);
  // It is over, and says so.
  await client.pid().then(() => assert(false), (error) => assert(error instanceof ManagementError));
  await settled("close()", client.close());

  if (error !== undefined || maxBufferedEvents < UNBOUNDED) return;
  if (end !== "in order") assertEquals(events.pop()?.type, "FATAL");
  const expected = eventsOf(concat(sent), maxEnvBytes);
  const whole = closeAt < 0 && !broken && (end === "in order" || end === "disconnected");
  if (whole) assertEquals(events.length, expected.length);
  // The end may have cut a block short.
  else events.pop();
  assert(events.length <= expected.length);
  for (const [i, event] of events.entries()) {
    assertEquals(contentOf(event), contentOf(expected[i]));
    assertEquals(event.raw.length, expected[i]!.raw.length);
  }
}

/** The simulator with a manager that says anything: it answers in lines, to the end. */
export async function simulates(luck: Luck): Promise<void> {
  const daemon = simulateDaemon({
    mode: luck.pick(["client", "server"]),
    version: luck.pick(["2.6.14", "2.7.6"]),
    hold: luck.oneIn(2),
    password: luck.pick([undefined, undefined, ""]),
  });
  const [ours, theirs] = connPair();
  const serving = daemon.serve(theirs);
  const answers: Uint8Array[] = [];
  const reading = (async () => {
    for (let chunk; (chunk = await ours.read()) !== null;) answers.push(chunk);
  })().catch(() => {});
  for (const chunk of fuzzedChunks(luck, fuzzedWire(luck))) {
    await ours.write(chunk).catch(() => {});
  }
  await ours.closeWrite().catch(() => {});
  await settled("reading", reading);
  await settled("serving", serving);
  await daemon.close();
  assertEquals(linesOf(concat(answers)).rest, []);
  ours.abort();
}
