import { assert, assertEquals } from "@std/assert";
import { test } from "node:test";
import { type ConnectError, connPair } from "@trunkline/sockets/auto";
import {
  CommandError,
  Demuxer,
  dial,
  EventAssembler,
  type GuardName,
  ManagementClient,
  ManagementError,
  type ManagementEvent,
  parseEvent,
} from "@trunkline/sockets/ovpn";
import {
  formatRecording,
  parseRecording,
  recordConn,
  type RecordedStep,
  type Recording,
  type ReplayError,
  replayRecording,
  startScriptedDaemon,
} from "@trunkline/sockets/ovpn/testing";
import { greetedPair, GREETING, rejection } from "./ovpn_fake.ts";
import { readDialogue, recordings } from "./ovpn_recordings.ts";

const decoder = new TextDecoder();
const NAMES = recordings().map(({ name }) => name);

/** Managers in these did what a ManagementClient refuses to do. */
const OTHER_MANAGERS: Readonly<Record<string, string>> = {
  "client-dynamic-challenge": "several commands in flight",
  "client-static-challenge": "several commands in flight",
  "exit-loses-replies": "several commands in flight",
  "external-key-pk-sign": "command bodies",
  "external-key-rsa-sign": "command bodies",
  "external-key-version-2": "command bodies",
  "hold-basics": "command bodies",
  "lexer-and-errors": "command bodies",
  "oversize-line": "a line longer than OpenVPN reads",
  "pipelined": "several commands in flight",
  "second-client-second": "a command before the greeting",
  "server-client-auth": "command bodies",
  "tcp-password-three-wrong": "no session: a test below",
  "test-1000": "several commands in flight",
  "v27-basics": "command bodies",
  "v27-multiline-password": "command bodies",
  "verb9-livelock": "no answer",
};

function textOf(recording: Recording, from: RecordedStep["from"]): string {
  const parts = recording.filter((step) => step.from === from && !step.end);
  return parts.map(({ text, bytes }) => text ?? decoder.decode(bytes)).join("");
}

/** A ManagementClient sends `pid` with `version n`, which some OpenVPNs do not answer. */
function withPidAfterVersion(recording: Recording): Recording {
  const steps: RecordedStep[] = [];
  let unanswered = false;
  const answer = { from: "daemon", at: 0, text: "SUCCESS: pid=1\r\n" } as const;
  for (const step of recording.flatMap(lineByLine)) {
    const text = textOf([step], step.from);
    const acknowledged = step.from === "daemon" &&
      text.startsWith("SUCCESS: Management client version");
    if (unanswered && !acknowledged) steps.push(answer);
    steps.push(step);
    if (unanswered && acknowledged) steps.push(answer);
    unanswered = step.from === "manager" && /^version \d+\n$/.test(text);
    if (unanswered) steps.push({ from: "manager", at: step.at, text: "pid\n" });
  }
  return steps;
}

/** What was done in order to record what comes of it. */
const RECORDED_HARM: readonly GuardName[] = [
  "ended-client",
  "proxy-fails-open",
  "reused-client",
  "signal-while-asked",
];

/** A recorded manager may have written several lines at once. */
function lineByLine(step: RecordedStep): RecordedStep[] {
  if (step.from === "daemon") return [step];
  const lines = textOf([step], "manager").split(/(?<=\n)/);
  return lines.map((text) => ({ from: "manager", at: step.at, text }));
}

function eventsIn(recording: Recording): ManagementEvent[] {
  const bytes = new TextEncoder().encode(textOf(recording, "daemon"));
  const demuxer = new Demuxer();
  const lines = [...demuxer.push(bytes), ...demuxer.end()];
  const assembler = new EventAssembler();
  const events = lines.filter(({ kind }) => kind === "event")
    .flatMap(({ line }) => assembler.push(parseEvent(line)));
  return [...events, ...assembler.end()];
}

const withoutRaw = ({ raw: _, ...rest }: ManagementEvent) => rest;

for (const name of NAMES.filter((name) => !(name in OTHER_MANAGERS))) {
  test(`a ManagementClient repeats the recorded session ${name}`, async () => {
    const recorded = readDialogue(name);
    const recording = withPidAfterVersion(recorded);
    const lines = textOf(recorded, "manager").split("\n").slice(0, -1);
    const [ours, theirs] = connPair();
    const replayed = replayRecording(theirs, recording);
    // Its error is told below, unless the client fails first.
    replayed.catch(() => {});
    const client = new ManagementClient(ours, { password: () => lines.shift()!, timeoutMs: 5000 });
    const events = Array.fromAsync(client.events);
    await client.ready;
    for (let line = lines.shift(); line !== undefined; line = lines.shift()) {
      await client.command(line, { allow: RECORDED_HARM }).catch((error) => {
        if (!(error instanceof CommandError)) throw error;
      });
    }
    if (recording.at(-1)?.end) await client.closed;
    await client.close();
    await replayed;
    assertEquals((await events).map(withoutRaw), eventsIn(recording).map(withoutRaw));
    assertEquals([client.strayReplies, client.droppedEvents], [0, 0]);
  });
}

test("the recordings that a ManagementClient cannot repeat are still there", () => {
  assertEquals(Object.keys(OTHER_MANAGERS).filter((name) => !NAMES.includes(name)), []);
});

/** The recorded lines that a client refuses to send; the others are sent as they are. */
async function refusedOf(name: string): Promise<readonly (readonly [string, string])[]> {
  const [client, daemon] = await greetedPair();
  const refused: (readonly [string, string])[] = [];
  let heard = daemon.hear();
  for (const line of textOf(readDialogue(name), "manager").split("\n").slice(0, -1)) {
    const done = rejection(client.command(line));
    const first = await Promise.race([done, heard]);
    if (first instanceof Error) {
      assert(!(first instanceof ManagementError));
      refused.push([line, first.name]);
    } else {
      // Nothing of what was refused came before.
      assertEquals(first, line);
      await daemon.say("ERROR: no\r\n");
      assert(await done instanceof CommandError);
      heard = daemon.hear();
    }
  }
  assertEquals(client.strayReplies, 0);
  await client.close();
  assertEquals(await heard, undefined);
  return refused;
}

test("a client refuses the lines of oversize-line of which OpenVPN would run the tail", async () => {
  const refused = await refusedOf("oversize-line");
  assertEquals(refused.map(([line, name]) => [line.length, name]), [
    [1028, "RangeError"],
    [2018, "RangeError"],
  ]);
});

test("a client refuses of lexer-and-errors what is followed by lines, or glued", async () => {
  assertEquals(await refusedOf("lexer-and-errors"), [
    ["client-auth nope 0", "TypeError"],
    ["hold\x00\x01\x7f", "TypeError"],
  ]);
  const [client, daemon] = await greetedPair();
  const ids = { clientId: "nope", keyId: "0" };
  const allow = ["unannounced-client"] as const;
  assertEquals((await rejection(client.clientAuth(ids, ["pid"], { allow }))).name, "TypeError");
  assertEquals((await rejection(client.needStr("n", "m".repeat(257)))).name, "RangeError");
  assert(!await daemon.pending());
  await client.close();
});

for (const name of ["pipelined", "exit-loses-replies"]) {
  test(`a client refuses the writes of ${name}, and sends their commands one by one`, async () => {
    const writes = readDialogue(name).filter(({ from }) => from === "manager")
      .map((step) => textOf([step], "manager")).filter((text) => /\n./.test(text));
    assert(writes.length > 0);
    for (const text of writes) {
      const [client, daemon] = await greetedPair();
      assertEquals((await rejection(client.command(text))).name, "TypeError");
      assertEquals((await rejection(client.command(text.trimEnd()))).name, "TypeError");
      const lines = text.trimEnd().split("\n");
      const done = lines.map((line) =>
        client.command(line).then(() => "done", ({ code }: ManagementError) => code)
      );
      const closed = lines.indexOf("exit");
      for (const line of lines.slice(0, closed < 0 ? lines.length : closed)) {
        assertEquals(await daemon.hear(), line);
        const silent = /^version \d/.test(line);
        if (silent) assertEquals(await daemon.hear(), "pid");
        assert(!await daemon.pending());
        await daemon.say(silent ? "ERROR: no\r\nSUCCESS: pid=1\r\n" : "ERROR: no\r\n");
      }
      if (closed >= 0) {
        assertEquals(await daemon.hear(), "exit");
        assert(!await daemon.pending());
        await daemon.conn.close();
      }
      const answered = closed < 0 ? lines.length : closed;
      const expected = lines.map((_, at) =>
        at < answered ? "command" : at === closed ? "done" : "disconnected"
      );
      assertEquals(await Promise.all(done), expected);
      await client.close();
    }
  });
}

test("the recorded session with three wrong passwords is refused", async () => {
  const recording = readDialogue("tcp-password-three-wrong");
  const lines = textOf(recording, "manager").split("\n");
  const [ours, theirs] = connPair();
  const replayed = replayRecording(theirs, recording);
  const client = new ManagementClient(ours, { password: (attempt) => lines[attempt - 1] });
  assertEquals((await rejection<ManagementError>(client.ready)).code, "wrong-password");
  await replayed;
});

for (const name of NAMES) {
  test(`the recording ${name} is the same after formatRecording() and parseRecording()`, () => {
    const recording = readDialogue(name);
    const again = parseRecording(formatRecording(recording));
    assertEquals(again, recording);
  });
}

test("a recording may be text, bytes, and ends without an end", () => {
  const recording: Recording = [
    { from: "daemon", at: 0, text: "ž\n" },
    { from: "manager", at: 1500, bytes: Uint8Array.of(112, 255, 10) },
  ];
  const { received, sent, timing } = formatRecording(recording);
  assertEquals([received.length, sent.length], [3, 3]);
  const again = parseRecording({ received, sent, timing });
  assertEquals(again.map(({ at }) => at), [0, 1500]);
  assertEquals(again[0]?.bytes, new TextEncoder().encode("ž\n"));
  assertEquals(again[1]?.bytes, recording[1]?.bytes);
});

const PID: Recording = [
  { from: "daemon", at: 0, text: GREETING },
  { from: "manager", at: 1, text: "pid\n" },
  { from: "daemon", at: 2, text: "SUCCESS: pid=7\r\n" },
];

test("recordConn() records what passes, both ways and to the end", async () => {
  const [ours, theirs] = connPair();
  const recorded = recordConn(ours);
  const replayed = replayRecording(theirs, [...PID, { from: "daemon", at: 3, end: true }]);
  const client = new ManagementClient(recorded.conn);
  assertEquals(await client.pid(), 7);
  await client.closed;
  await replayed;
  const { recording } = recorded;
  assertEquals(recording.map(({ from, end }) => end ?? from), [
    "daemon",
    "manager",
    "daemon",
    true,
  ]);
  assertEquals(textOf(recording, "manager"), "pid\n");
  assertEquals(textOf(recording, "daemon"), textOf(PID, "daemon"));
  const times = recording.map(({ at }) => at);
  assertEquals(times, times.toSorted((a, b) => a - b));
});

/** What a replay of {@linkcode PID} rejects with if the manager sends `text` and leaves. */
async function mismatch(text: string): Promise<ReplayError> {
  const [ours, theirs] = connPair();
  const failed = rejection<ReplayError>(replayRecording(theirs, PID));
  if (text !== "") await ours.write(new TextEncoder().encode(text));
  await ours.closeWrite();
  const error = await failed;
  ours.abort();
  return error;
}

test("a replay rejects with what was expected and what came", async () => {
  const wrong = await mismatch('password "Auth" "secret"\n');
  assertEquals(wrong.name, "ReplayError");
  assertEquals([wrong.expected, wrong.actual], ["pid", 'password "Auth" "secret"']);
  assert(!wrong.message.includes("secret"));
  const left = await mismatch("");
  assertEquals([left.expected, left.actual], ["pid", undefined]);
  const half = await mismatch("pid");
  assertEquals([half.expected, half.actual], ["pid", undefined]);
  const more = await mismatch("pid\nverb\n");
  assertEquals([more.expected, more.actual], [undefined, "verb"]);
});

test("a replay gives up a line without an end", async () => {
  const [ours, theirs] = connPair();
  const failed = rejection<ReplayError>(replayRecording(theirs, PID));
  ours.write(new Uint8Array(128 * 1024).fill(97)).catch(() => {});
  const error = await failed;
  assertEquals([error.expected, error.actual], [undefined, undefined]);
  assertEquals(error.name, "ReplayError");
  ours.abort();
});

test("a replay compares commands as OpenVPN reads them", async () => {
  const [ours, theirs] = connPair();
  const steps = [{ from: "manager", at: 0, text: 'username "Auth" "a\\"b c"\n' }] as const;
  const replayed = replayRecording(theirs, steps);
  await ours.write(new TextEncoder().encode(`username Auth 'a"b c'\r\n`));
  await ours.close();
  await replayed;
});

test("a replay ends by its signal, at once and later", async () => {
  const early = connPair()[1];
  const done = replayRecording(early, PID, { signal: AbortSignal.abort() });
  assertEquals((await rejection<ConnectError>(done)).code, "aborted");
  const stop = new AbortController();
  const [ours, theirs] = connPair();
  const waiting = rejection<ConnectError>(replayRecording(theirs, PID, { signal: stop.signal }));
  assert(await ours.read() !== null);
  stop.abort();
  assertEquals((await waiting).code, "aborted");
  await rejection(ours.read());
});

test("a replay keeps the recorded times, scaled", async () => {
  const [ours, theirs] = connPair();
  const start = performance.now();
  const steps = [
    { from: "daemon", at: 1000, text: GREETING },
    { from: "daemon", at: 3000, end: true },
  ] as const;
  const replayed = replayRecording(theirs, steps, { timeScale: 0.05 });
  await ours.read();
  // Only that it is not at once: timers may be late, never early (but for the rounding of clocks).
  assert(performance.now() - start > 45);
  await ours.close();
  await replayed;
});

test("startScriptedDaemon() plays to every manager, and closes with them", async () => {
  const daemon = await startScriptedDaemon(PID);
  const clients = await Promise.all([dial(daemon.addr), dial(daemon.addr)]);
  assertEquals(await Promise.all(clients.map((client) => client.pid())), [7, 7]);
  await clients[0].close();
  await daemon.finished;
  await daemon.close();
  await clients[1].closed.catch(() => {});
  const refused = await rejection<ConnectError>(dial(daemon.addr));
  assertEquals(refused.code, "refused");
});

test("startScriptedDaemon() tells of a mismatch, and the manager is cut off", async () => {
  const daemon = await startScriptedDaemon(PID);
  const client = await dial(daemon.addr);
  const error = await rejection<ManagementError>(client.command("verb"));
  assert(["connection", "disconnected"].includes(error.code), error.code);
  const mismatch = await rejection<ReplayError>(daemon.finished);
  assertEquals([mismatch.expected, mismatch.actual], ["pid", "verb"]);
  await daemon.close();
});
