/** Events out of lines, and a few words out of events. */
import { assert, assertEquals, assertStrictEquals } from "@std/assert";
import { describeEvent, type ManagementEvent, parseEvent } from "@trunkline/sockets/ovpn";
import fc from "fast-check";
import { test } from "node:test";

const ENCODER = new TextEncoder();

/** All fields but `raw`, after a look at that. */
function fields(line: string): unknown {
  const event = parseEvent(line);
  assertEquals(event.raw, ENCODER.encode(line));
  const { raw: _, ...rest } = event;
  return rest;
}

function check(expected: Readonly<Record<string, Readonly<Record<string, unknown>>>>): void {
  for (const [line, event] of Object.entries(expected)) assertEquals(fields(line), event, line);
}

/** A STATE event with nothing but `known`. */
function state(known: Readonly<Record<string, unknown>>): Readonly<Record<string, unknown>> {
  return {
    type: "STATE",
    time: 0,
    name: "",
    description: "",
    tunnelAddress: "",
    remoteAddress: "",
    remotePort: undefined,
    localAddress: "",
    localPort: undefined,
    tunnelAddress6: "",
    ...known,
  };
}

test("parseEvent() reads STATE with 8 and with 9 fields", () => {
  const connected = {
    time: 1700000000,
    name: "CONNECTED",
    description: "SUCCESS",
    tunnelAddress: "10.8.0.2",
    remoteAddress: "192.0.2.1",
    remotePort: 1194,
    localAddress: "192.0.2.9",
    localPort: 50000,
  };
  const line = "STATE:1700000000,CONNECTED,SUCCESS,10.8.0.2,192.0.2.1,1194,192.0.2.9,50000";
  check({
    [line]: state(connected),
    [`${line},fd00::1000`]: state({ ...connected, tunnelAddress6: "fd00::1000" }),
    [`${line},fd00::1000,what,comes`]: state({ ...connected, tunnelAddress6: "fd00::1000" }),
    "STATE:1700000000,WAIT,,,,,,": state({ time: 1700000000, name: "WAIT" }),
  });
});

test("parseEvent() reads STATE of old daemons and with fields missing", () => {
  const reconnecting = state({ time: 123, name: "RECONNECTING", description: "SIGHUP" });
  check({
    "STATE:123,CONNECTED,good,172.16.0.1,192.168.4.1": state({
      time: 123,
      name: "CONNECTED",
      description: "good",
      tunnelAddress: "172.16.0.1",
      remoteAddress: "192.168.4.1",
    }),
    "STATE:123,ASSIGN_IP,,172.16.0.1": state({
      time: 123,
      name: "ASSIGN_IP",
      tunnelAddress: "172.16.0.1",
    }),
    "STATE:123,RECONNECTING,SIGHUP,,": reconnecting,
    "STATE:123,RECONNECTING,SIGHUP,,,extra": reconnecting,
    "STATE:": state({}),
    "STATE:,": state({}),
    "STATE:,,,,": state({}),
    "STATE:123": state({ time: 123 }),
  });
});

test("parseEvent() keeps the commas of the server in an AUTH_PENDING description", () => {
  const pending = { time: 1, name: "AUTH_PENDING" };
  check({
    "STATE:1,AUTH_PENDING,,,,,,": state(pending),
    "STATE:1,AUTH_PENDING,timeout 5,,,,,": state({ ...pending, description: "timeout 5" }),
    "STATE:1,AUTH_PENDING,timeout 5,a,,b,,,,,": state({
      ...pending,
      description: "timeout 5,a,,b",
    }),
    "STATE:1,AUTH_PENDING,x,y": state({ ...pending, description: "x", tunnelAddress: "y" }),
    "STATE:1,AUTH_PENDING": state(pending),
  });
});

test("parseEvent() reads HOLD with and without a number", () => {
  const hold = (message: string, waitSeconds?: number) => ({ type: "HOLD", message, waitSeconds });
  check({
    "HOLD:Waiting for hold release:0": hold("Waiting for hold release", 0),
    "HOLD:Waiting for hold release:10": hold("Waiting for hold release", 10),
    "HOLD:Waiting for hold release": hold("Waiting for hold release"),
    "HOLD:a:-1": hold("a:-1"),
    "HOLD:a:": hold("a:"),
    "HOLD:5": hold("5"),
    "HOLD:": hold(""),
  });
});

test("parseEvent() reads ECHO", () => {
  const echo = (time: number, message: string) => ({ type: "ECHO", time, message });
  check({
    "ECHO:123,foo": echo(123, "foo"),
    "ECHO:123,setenv A b,c:d": echo(123, "setenv A b,c:d"),
    "ECHO:123,": echo(123, ""),
    "ECHO:,foo": echo(0, "foo"),
    "ECHO:,": echo(0, ""),
    "ECHO:123": echo(0, ""),
    "ECHO:": echo(0, ""),
  });
});

test("parseEvent() reads LOG", () => {
  const log = (time: number, flags: string, message: string) => ({
    type: "LOG",
    time,
    flags,
    message,
  });
  check({
    "LOG:123,D,MANAGEMENT: >STATE:1,WAIT,,": log(123, "D", "MANAGEMENT: >STATE:1,WAIT,,"),
    "LOG:123,,text": log(123, "", "text"),
    "LOG:123,IW,": log(123, "IW", ""),
    "LOG:123,I": log(123, "", ""),
    "LOG:123": log(0, "", ""),
    "LOG:": log(0, "", ""),
  });
});

test("parseEvent() reads BYTECOUNT and BYTECOUNT_CLI", () => {
  const total = (bytesIn: unknown, bytesOut: unknown) => ({ type: "BYTECOUNT", bytesIn, bytesOut });
  const client = (clientId: string, bytesIn: unknown, bytesOut: unknown) => ({
    type: "BYTECOUNT_CLI",
    clientId,
    bytesIn,
    bytesOut,
  });
  check({
    "BYTECOUNT:123,456": total(123, 456),
    "BYTECOUNT:": total(0, 0),
    "BYTECOUNT:,": total(0, 0),
    "BYTECOUNT:5,": total(5, 0),
    "BYTECOUNT:,6": total(0, 6),
    "BYTECOUNT:6": total(6, 0),
    "BYTECOUNT:wrong,bad": total(0, 0),
    "BYTECOUNT:1,2,3": total(1, 2),
    "BYTECOUNT_CLI:7,123,456": client("7", 123, 456),
    "BYTECOUNT_CLI:123,456": client("123", 456, 0),
    "BYTECOUNT_CLI:": client("", 0, 0),
    "BYTECOUNT_CLI:abc123,123,456": client("abc123", 123, 456),
    "BYTECOUNT_CLI:abc123,123": client("abc123", 123, 0),
    "BYTECOUNT_CLI:18446744073709551615,1,2": client("18446744073709551615", 1, 2),
  });
});

test("parseEvent() reads counters from 2^53 on as bigint", () => {
  const counts = (line: string) => {
    const event = parseEvent(line);
    return event.type === "BYTECOUNT" ? [event.bytesIn, event.bytesOut] : undefined;
  };
  assertEquals(counts("BYTECOUNT:9007199254740991,9007199254740992"), [
    9007199254740991,
    9007199254740992n,
  ]);
  assertEquals(counts("BYTECOUNT:18446744073709551615,0"), [18446744073709551615n, 0]);
});

test("parseEvent() takes no hostile number for a number", () => {
  const long = "9".repeat(500_000);
  const hostile = [long, "9".repeat(21), "-1", "+1", "1e3", "0x10", "1.5", " 1", "١", "Infinity"];
  for (const number of hostile) {
    check({
      [`BYTECOUNT:${number},${number}`]: { type: "BYTECOUNT", bytesIn: 0, bytesOut: 0 },
      [`BYTECOUNT_CLI:1,${number},2`]: {
        type: "BYTECOUNT_CLI",
        clientId: "1",
        bytesIn: 0,
        bytesOut: 2,
      },
      [`ECHO:${number},a`]: { type: "ECHO", time: 0, message: "a" },
      [`LOG:${number},I,a`]: { type: "LOG", time: 0, flags: "I", message: "a" },
      [`STATE:${number},WAIT,,,a,${number},b,${number}`]: state({
        name: "WAIT",
        remoteAddress: "a",
        localAddress: "b",
      }),
    });
    const hold = parseEvent(`HOLD:a:${number}`);
    assert(hold.type === "HOLD" && hold.waitSeconds === undefined);
  }
});

test("parseEvent() reads the version of a greeting, and INFO and FATAL", () => {
  const info = (message: string, managementVersion?: number) => ({
    type: "INFO",
    message,
    managementVersion,
  });
  const greeting = "OpenVPN Management Interface Version 5 -- type 'help' for more info";
  check({
    [`INFO:${greeting}`]: info(greeting, 5),
    "INFO:OpenVPN Management Interface Version 12": info(
      "OpenVPN Management Interface Version 12",
      12,
    ),
    "INFO:something else: Version 5": info("something else: Version 5"),
    "INFO:": info(""),
    "FATAL:cannot open, a: b": { type: "FATAL", message: "cannot open, a: b" },
    "FATAL:": { type: "FATAL", message: "" },
  });
});

test("parseEvent() gives what it has no type for as unknown or malformed", () => {
  const unknown = (keyword: string, body: string) => ({ type: "unknown", keyword, body });
  check({
    "DUMMY:baz": unknown("DUMMY", "baz"),
    "DUMMY:": unknown("DUMMY", ""),
    "DUMMY:abc,123,456": unknown("DUMMY", "abc,123,456"),
    "REMOTE:::1,8443": unknown("REMOTE", "::1,8443"),
    "client:ENV,END": { type: "unknown", keyword: "client" },
    "PKCS11ID-COUNT:x": unknown("PKCS11ID-COUNT", "x"),
    ":": unknown("", ""),
    "state:1": unknown("state", "1"),
    " STATE:1": unknown(" STATE", "1"),
    "unknown:x": unknown("unknown", "x"),
    "malformed:x": unknown("malformed", "x"),
    "constructor:x": unknown("constructor", "x"),
    "__proto__:x": unknown("__proto__", "x"),
    "": { type: "malformed", text: "" },
    "STATE": { type: "malformed", text: "STATE" },
    "HTTP/1.1 200 OK": { type: "malformed", text: "HTTP/1.1 200 OK" },
  });
  assertStrictEquals(Object.getPrototypeOf(parseEvent("__proto__:x")), Object.prototype);
});

test("parseEvent() keeps the bytes of text that is not UTF-8", () => {
  const line = Uint8Array.from([...ENCODER.encode("FATAL:"), 0xff, 0x41, 0xc3]);
  const event = parseEvent(line);
  assert(event.type === "FATAL");
  assertEquals(event.message, "\ufffdA\ufffd");
  assertEquals(event.raw, line);
  // A byte order mark is not swallowed.
  assertEquals(parseEvent(ENCODER.encode("\ufeffHOLD:")).type, "unknown");
});

/** Text with much of what the parser looks for. */
const TEXT = fc.array(
  fc.oneof(
    fc.constantFrom("STATE:", "HOLD:", "ECHO:", "LOG:", "INFO:", "FATAL:", "BYTECOUNT:"),
    fc.constantFrom("BYTECOUNT_CLI:", "PASSWORD:", "CLIENT:", "ENV,", "password=", "Auth-Token:"),
    fc.constantFrom(",", ":", "1", "\0", "AUTH_PENDING", "CONNECTED", "\ufeff", "é", "😀"),
    fc.bigInt().map(String),
    fc.string({ unit: "binary", maxLength: 8 }),
  ),
  { maxLength: 14 },
).map((parts) => parts.join(""));

test("parseEvent() and describeEvent() never throw", () => {
  const input = fc.oneof(TEXT, fc.uint8Array(), fc.string(), TEXT.map((it) => ENCODER.encode(it)));
  fc.assert(fc.property(input, (line) => {
    const event = parseEvent(line);
    assertEquals(typeof describeEvent(event), "string");
    if (typeof line !== "string") assertStrictEquals(event.raw, line);
  }));
});

test("parseEvent() gives the same for a string and for its bytes", () => {
  fc.assert(fc.property(TEXT, (text) => {
    assertEquals(parseEvent(text), parseEvent(ENCODER.encode(text)));
  }));
});

test("describeEvent() says what the Go package's String() says", () => {
  const expected: Readonly<Record<string, string>> = {
    "": 'Malformed Event ""',
    "HTTP/1.1 200 OK": 'Malformed Event "HTTP/1.1 200 OK"',
    "     ": 'Malformed Event "     "',
    "\0": 'Malformed Event "\\x00"',
    'a "b"': 'Malformed Event "a \\"b\\""',
    "DUMMY:baz": "DUMMY: baz",
    "DUMMY:": "DUMMY: ",
    "DUMMY:abc,123,456": "DUMMY: abc,123,456",
    "HOLD:": "",
    "HOLD:waiting for hold release": "waiting for hold release",
    "HOLD:Waiting for hold release:5": "Waiting for hold release:5",
    "ECHO:123,foo": "ECHO: foo",
    "ECHO:": "ECHO: ",
    "STATE:": "",
    "STATE:,,,,": "",
    "STATE:123,CONNECTED,good,172.16.0.1,192.168.4.1": "CONNECTED: 192.168.4.1",
    "STATE:123,ASSIGN_IP,,172.16.0.1,": "ASSIGN_IP: 172.16.0.1",
    "STATE:123,RECONNECTING,SIGHUP,,": "RECONNECTING: SIGHUP",
    "STATE:123,WAIT,,,": "WAIT",
    "BYTECOUNT:123,456": "123 in, 456 out",
    "BYTECOUNT:": "0 in, 0 out",
    "BYTECOUNT:18446744073709551615,1": "18446744073709551615 in, 1 out",
    "BYTECOUNT_CLI:7,1,2": "Client 7: 1 in, 2 out",
    "BYTECOUNT_CLI:123,456": "Client 123: 456 in, 0 out",
    "INFO:hello": "INFO: hello",
    "FATAL:the end": "FATAL: the end",
    "LOG:1,I,text": "LOG: 1,I,text",
  };
  for (const [line, text] of Object.entries(expected)) {
    assertEquals(describeEvent(parseEvent(line)), text, line);
  }
});

test("describeEvent() leaves secrets out", () => {
  const shown = (line: string) => describeEvent(parseEvent(line) satisfies ManagementEvent);
  const expected: Readonly<Record<string, string>> = {
    "PASSWORD:Auth-Token:hunter2": "PASSWORD: Auth-Token:[redacted]",
    "PASSWORD:Need 'Auth' password": "PASSWORD: Need 'Auth' password",
    "PASSWORD:Something new hunter2": "PASSWORD: [redacted]",
    "PASSWORD:Verification Failed: 'Auth' ['no: [it]']":
      "PASSWORD: Verification Failed: 'Auth' ['no: [it]']",
    "PASSWORD:Verification Failed: 'Auth' ['CRV1:R,E:hunter2:Y3Ix:PIN?']":
      "PASSWORD: Verification Failed: 'Auth' ['CRV1:[redacted]'] PIN?",
    "PASSWORD:Verification Failed: 'Auth' ['CRV1:R,E:hunter2']":
      "PASSWORD: Verification Failed: 'Auth' ['CRV1:[redacted]']",
    "CLIENT:ENV,password=hunter2": "CLIENT: ENV,password=[redacted]",
    "CLIENT:ENV,auth_token=hunter2": "CLIENT: ENV,auth_token=[redacted]",
    "CLIENT:ENV,other=SCRV1:hunter2:": "CLIENT: ENV,other=[redacted]",
    "UPDOWN:ENV,PASSWD=hunter2": "UPDOWN: ENV,PASSWD=[redacted]",
    "CLIENT:ENV,username=alice": "CLIENT: ENV,username=alice",
    "CLIENT:ENV,END": "CLIENT: ENV,END",
    "CLIENT:CR_RESPONSE,0,1,hunter2": "CLIENT: CR_RESPONSE,0,1,[redacted]",
    "CLIENT:CR_RESPONSE,x,1,hunter2": "CLIENT: [redacted]",
    "CLIENT:CONNECT,0,1": "CLIENT: CONNECT,0,1",
    "CLIENT:DISCONNECT,0": "CLIENT: DISCONNECT,0",
    "CLIENT:ADDRESS,0,10.8.0.2,1": "CLIENT: ADDRESS,0,10.8.0.2,1",
    "UPDOWN:UP": "UPDOWN: UP",
    "INFOMSG:WEB_AUTH:hidden,proxy=hunter2:https://x/hunter2":
      "INFOMSG: WEB_AUTH:hidden,proxy=[redacted]:[redacted]",
    "INFOMSG:WEB_AUTH:external,proxy=http://u:a,hunter2@h:1:https://x":
      "INFOMSG: WEB_AUTH:external,proxy=[redacted]:[redacted]",
    "INFOMSG:OPEN_URL:https://hunter2": "INFOMSG: OPEN_URL:[redacted]",
    "INFOMSG:CR_TEXT:R,E:PIN?": "INFOMSG: CR_TEXT:R,E:PIN?",
    "INFOMSG:hunter2": "INFOMSG: [redacted]",
    "REMOTE:::1,8443,tcp6-client": "REMOTE: ::1,8443,tcp6-client",
    "LOG:1,D,MANAGEMENT: CMD 'cr-response hunter2'":
      "LOG: 1,D,MANAGEMENT: CMD 'cr-response [redacted]",
    "LOG:1,D,MANAGEMENT: CMD 'client-pending-auth 0 1 hunter2'":
      "LOG: 1,D,MANAGEMENT: CMD 'client-pending-auth [redacted]",
    "LOG:1,,CR response was sent by client ('hunter2')":
      "LOG: 1,,CR response was sent by client ('[redacted]",
    "LOG:1,D,MANAGEMENT: CMD 'state on'": "LOG: 1,D,MANAGEMENT: CMD 'state on'",
    "LOG:1,,AUTH: Received control message: AUTH_FAILED,CRV1:R:hunter2":
      "LOG: 1,,AUTH: Received control message: AUTH_FAILED,CRV1:[redacted]",
    "LOG:hunter2": "LOG: hunter2",
  };
  for (const [line, text] of Object.entries(expected)) assertEquals(shown(line), text, line);
});
