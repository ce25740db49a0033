/** docs/ovpn.md names what there is, with its real numbers, and all that the Go package has. */
import { assert, assertEquals } from "@std/assert";
import { readdirSync, readFileSync } from "node:fs";
import { test } from "node:test";
import * as ovpn from "@trunkline/sockets/ovpn";

const read = (path: string): string => readFileSync(new URL(`../${path}`, import.meta.url), "utf8");

const GUIDE = read("docs/ovpn.md");
const SOURCES = readdirSync(new URL("../ovpn", import.meta.url)).map((file) => read(`ovpn/${file}`))
  .join("\n");

/** Every exported symbol of github.com/apparentlymart/go-openvpn-mgmt, packages demux and openvpn. */
const GO_SYMBOLS: readonly string[] = `
  Demultiplex StatusFormat StatusFormatDefault StatusFormatV3
  MgmtClient NewClient Dial MgmtClient.HoldRelease MgmtClient.SetStateEvents MgmtClient.SetEchoEvents
  MgmtClient.SetByteCountEvents MgmtClient.SendSignal MgmtClient.LatestState MgmtClient.LatestStatus
  MgmtClient.Pid ErrorFromServer ErrorFromServer.Error ErrorFromServer.String
  Event Event.String UnknownEvent UnknownEvent.Type UnknownEvent.Body UnknownEvent.String
  MalformedEvent MalformedEvent.String HoldEvent HoldEvent.String
  StateEvent StateEvent.RawTimestamp StateEvent.NewState StateEvent.Description
  StateEvent.LocalTunnelAddr StateEvent.RemoteAddr StateEvent.String
  EchoEvent EchoEvent.RawTimestamp EchoEvent.Message EchoEvent.String
  ByteCountEvent ByteCountEvent.ClientId ByteCountEvent.BytesIn ByteCountEvent.BytesOut
  ByteCountEvent.String MgmtListener NewMgmtListener Listen MgmtListener.Accept MgmtListener.Close
  MgmtListener.Addr MgmtListener.Serve IncomingConn IncomingConn.Open IncomingConn.Close
  IncomingConnHandler IncomingConnHandler.ServeOpenVPNMgmt
  IncomingConnHandlerFunc IncomingConnHandlerFunc.ServeOpenVPNMgmt ListenAndServe
`.trim().split(/\s+/);

/** Objects that have the members of the types and classes that the table names. */
const HOLDERS: Readonly<Record<string, object>> = {
  ByteCountEvent: ovpn.parseEvent("BYTECOUNT:"),
  ClientByteCountEvent: ovpn.parseEvent("BYTECOUNT_CLI:"),
  CommandError: new ovpn.CommandError("pid", ""),
  EchoEvent: ovpn.parseEvent("ECHO:"),
  IncomingConnection: ovpn.IncomingConnection.prototype,
  ManagementClient: ovpn.ManagementClient.prototype,
  ManagementListener: ovpn.ManagementListener.prototype,
  StateEvent: ovpn.parseEvent("STATE:"),
  StatusFormat: ovpn.StatusFormat,
  UnknownEvent: ovpn.parseEvent("X:"),
};

/** The cells of every row of the table that begins with the column `first`, without its head. */
function table(first: string): string[][] {
  const lines = GUIDE.slice(GUIDE.search(new RegExp(`^\\| ${first} +\\|`, "m"))).split("\n");
  const end = lines.findIndex((line) => !line.startsWith("|"));
  return lines.slice(2, end).map((line) => line.slice(1, -1).split("|").map((cell) => cell.trim()));
}

const names = (cell = ""): string[] =>
  [...cell.matchAll(/`([^`]+)`/g)].map(([, name = ""]) => name);

function exists(name: string): boolean {
  const [owner = "", member] = name.split(".");
  if (member !== undefined) return member in (HOLDERS[owner] ?? {});
  const declaration = new RegExp(
    `^export (?:async )?(?:class|const|function|interface|type) ${name}\\b`,
    "m",
  );
  return owner in ovpn || declaration.test(SOURCES);
}

test("docs/ovpn.md names every value that the entry point exports", () => {
  const missing = Object.keys(ovpn).filter((name) => !new RegExp(`\`${name}\\b`).test(GUIDE));
  assertEquals(missing, []);
});

test("docs/ovpn.md names every error code, and no other", () => {
  const union = /type ManagementErrorCode =([^;]+);/.exec(SOURCES)?.[1] ?? "";
  const codes = [...union.matchAll(/"([a-z-]+)"/g)].map(([, code]) => code);
  assertEquals(table("`code`").map(([code]) => names(code)[0]), codes);
});

/** A line of every event whose grammar wants more than its keyword. */
const SAMPLES: Readonly<Record<string, string>> = {
  ClientAuthEvent: "CLIENT:CONNECT,0,1",
  ClientSessionEvent: "CLIENT:ESTABLISHED,0",
  ClientAddressEvent: "CLIENT:ADDRESS,0,10.8.0.2,1",
  ClientResponseEvent: "CLIENT:CR_RESPONSE,0,1,YQ==",
  ClientEnvEvent: "CLIENT:ENV,a=b",
  UpDownEvent: "UPDOWN:UP",
  UpDownEnvEvent: "UPDOWN:ENV,a=b",
  PasswordNeedEvent: "PASSWORD:Need 'Auth' password",
  PasswordFailedEvent: "PASSWORD:Verification Failed: 'Auth'",
  AuthTokenEvent: "PASSWORD:Auth-Token:a",
  NeedOkEvent: "NEED-OK:Need 'a' confirmation MSG:b",
  NeedStrEvent: "NEED-STR:Need 'a' string MSG:b",
  SignEvent: "PK_SIGN:AAAA",
  ProxyEvent: "PROXY:1,TCP,a",
  RemoteEvent: "REMOTE:a,1,udp",
  WebAuthEvent: "INFOMSG:WEB_AUTH::a",
  OpenUrlEvent: "INFOMSG:OPEN_URL:a",
  ChallengeTextEvent: "INFOMSG:CR_TEXT:R:a",
  NotifyEvent: "NOTIFY:a,b,c",
  Pkcs11CountEvent: "PKCS11ID-COUNT:1",
  Pkcs11EntryEvent: "PKCS11ID-ENTRY:'1'",
  UnknownEvent: "X:",
  MalformedEvent: "x",
};

/** Events that OpenVPN has no line for. */
const OWN = ["dropped", "connected", "resumed", "disconnected", "connect-failed"];

/** The interfaces of a union, and of the unions in it. */
function membersOf(type: string): string[] {
  const union = new RegExp(`export type ${type} =([^;<]+);`).exec(SOURCES)?.[1];
  return union === undefined ? [type] : (union.match(/\w+/g) ?? []).flatMap(membersOf);
}

test("docs/ovpn.md lists every typed event with its fields", () => {
  const rows = table("`type`");
  assertEquals(rows.map(([, name]) => names(name)[0]).sort(), membersOf("ManagementEvent").sort());
  for (const [type, name, , fields = ""] of rows) {
    const keyword = names(type)[0]?.slice(1, -1) ?? "";
    if (OWN.includes(keyword)) continue;
    const event = ovpn.parseEvent(SAMPLES[names(name)[0] ?? ""] ?? `${keyword}:`);
    assertEquals(event.type, keyword);
    for (const field of Object.getOwnPropertyNames(event)) {
      const common = ["type", "raw", "toJSON"].includes(field);
      assert(common || names(fields).includes(field), `${type}: ${field}`);
    }
  }
});

test("docs/ovpn.md tells the limits as they are", () => {
  const told = new Map(table("name").map(([name, value]) => [names(name)[0], value]));
  const constants = Object.entries(ovpn).filter(([, value]) => typeof value === "number");
  const defaults = /const DEFAULTS = \{([^}]+)\}/.exec(SOURCES)?.[1] ?? "";
  const options = [...defaults.matchAll(/(\w+): ([\d_ *]+),/g)].map(([, name = "", value = ""]) => {
    const factors = value.replaceAll("_", "").split("*").map(Number);
    return [name, factors.reduce((product, factor) => product * factor)];
  });
  assert(constants.length >= 4 && options.length >= 4);
  for (const [name, value] of [...constants, ...options]) {
    assertEquals(told.get(String(name)), String(value), String(name));
  }
});

test("docs/ovpn.md maps every symbol of the Go package to one that exists", () => {
  const rows = table("Go");
  assertEquals(rows.flatMap(([go]) => names(go)).sort(), GO_SYMBOLS.toSorted());
  for (const [go = "", ours] of rows) {
    assert(names(ours).length > 0, go);
    for (const name of names(ours)) assert(exists(name), `${go}: ${name} does not exist`);
  }
});
