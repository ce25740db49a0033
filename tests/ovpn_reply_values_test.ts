/** Values out of replies, and one error for what is the reply to something else. */
import { assert, assertEquals, assertThrows } from "@std/assert";
import { Demuxer, ManagementError } from "@trunkline/sockets/ovpn";
import fc from "fast-check";
import { test } from "node:test";
import * as replyValues from "../ovpn/reply_values.ts";
import {
  parseAuthRetry,
  parseClientCount,
  parseEnvFilter,
  parseHold,
  parseKillCount,
  parseLoadStats,
  parseMute,
  parsePid,
  parsePkcs11Count,
  parsePkcs11Entry,
  parseRemoteEntries,
  parseRemoteEntryCount,
  parseUpdateCount,
  parseVerb,
  parseVersion,
  type ReplyText,
} from "../ovpn/reply_values.ts";
import { recordings } from "./ovpn_recordings.ts";

const success = (text: string): ReplyText => ({ success: text, lines: [] });
const block = (...lines: string[]): ReplyText => ({ success: "", lines });

type Parse = (reply: ReplyText) => unknown;

const PARSERS: Readonly<Record<string, Parse>> = replyValues;

function refuses(parse: Parse, ...replies: ReplyText[]): void {
  for (const reply of replies) {
    const error = assertThrows(() => parse(reply), ManagementError);
    assertEquals(error.code, "protocol", JSON.stringify(reply));
  }
}

/** Every line that a recorded session has, without its `>`. */
function linesOf(name: string): string[] {
  const bytes = recordings().find((recording) => recording.name === name)?.bytes;
  assert(bytes !== undefined, name);
  const demuxer = new Demuxer();
  return [...demuxer.push(bytes), ...demuxer.end()].map(({ line }) =>
    new TextDecoder().decode(line)
  );
}

/** What `parse` makes of the recorded `SUCCESS: ` replies that begin with `prefix`, each once. */
function recorded(parse: Parse, prefix: string): unknown[] {
  const lines = recordings().flatMap(({ name }) => linesOf(name));
  const texts = lines.filter((line) => line.startsWith(`SUCCESS: ${prefix}`)).map((line) =>
    line.slice("SUCCESS: ".length)
  );
  assert(texts.length > 0, prefix);
  return [...new Set(texts)].map((text) => parse(success(text)));
}

test("replies with a number give it", () => {
  assertEquals(parsePid(success("pid=42")), 42);
  assertEquals(parseVerb(success("verb=3")), 3);
  assertEquals(parseMute(success("mute=0")), 0);
  assertEquals(parseClientCount(success("nclients=2")), 2);
  assertEquals(parseEnvFilter(success("env_filter_level=2")), 2);
  const parsers = { pid: parsePid, verb: parseVerb, mute: parseMute, nclients: parseClientCount };
  for (const [name, parse] of Object.entries(parsers)) {
    refuses(parse, success(""), success(`${name}=`), success(`${name}=x`), success(`${name}=1 `));
    refuses(parse, success(`x${name}=1`), success(`${name}=-1`), success("verb level changed"));
    refuses(parse, success(`${name}=${"9".repeat(17)}`), block(`${name}=1`));
  }
  refuses(parseClientCount, success("nclients=1,bytesin=4055,bytesout=4173"));
});

test("hold gives its flag, auth-retry its mode", () => {
  assertEquals(parseHold(success("hold=1")), true);
  assertEquals(parseHold(success("hold=0")), false);
  refuses(parseHold, success("hold=2"), success("hold=11"), success("hold flag set to ON"));
  for (const mode of ["none", "nointeract", "interact"] as const) {
    assertEquals(parseAuthRetry(success(`auth-retry=${mode}`)), mode);
  }
  refuses(parseAuthRetry, success("auth-retry=no"), success("auth-retry parameter changed"));
});

test("load-stats gives exact numbers", () => {
  assertEquals(parseLoadStats(success("nclients=2,bytesin=5810,bytesout=18446744073709551615")), {
    clients: 2,
    bytesIn: 5810,
    bytesOut: 18446744073709551615n,
  });
  refuses(
    parseLoadStats,
    success("nclients=2"),
    success("nclients=2,bytesin=1,bytesout="),
    success("nclients=2,bytesin=1,bytesout=2,more=3"),
    success(`nclients=2,bytesin=1,bytesout=${"9".repeat(21)}`),
  );
});

test("kill gives how many, whatever the name says", () => {
  const named = (name: string) => success(`common name '${name}' found, 3 client(s) killed`);
  assertEquals(parseKillCount(named("alice")), 3);
  assertEquals(parseKillCount(named("x' found, 9 client(s) killed")), 3);
  assertEquals(parseKillCount(named("9 client(s) at address x killed")), 3);
  assertEquals(parseKillCount(success("1 client(s) at address udp:127.0.0.1:37456 killed")), 1);
  refuses(parseKillCount, success("client-kill command succeeded"), success("0 killed"));
});

test("version gives the program and the interface", () => {
  const text = "OpenVPN 2.6.14 x86_64-pc-linux-gnu [SSL (OpenSSL)] [LZO]";
  const [program, management] = [`OpenVPN Version: ${text}`, "Management Version: 5"];
  const value = { openvpn: { text, version: "2.6.14" }, management: 5 };
  assertEquals(parseVersion(block(program, management)), value);
  assertEquals(parseVersion(block(management, "Something New: 7", program)), value);
  const versionOf = (text: string) =>
    parseVersion(block(`OpenVPN Version: ${text}`, management)).openvpn.version;
  assertEquals(versionOf("OpenVPN 2.7_beta1 x86_64"), "2.7_beta1");
  assertEquals(versionOf("OpenVPN 2.8_git [git:master/0123]"), "2.8_git");
  assertEquals(versionOf("OpenVPN"), undefined);
  assertEquals(versionOf("OpenVPN x86_64 2.6.14"), undefined);
  refuses(parseVersion, block(), block(program), block(management), success(program));
  refuses(parseVersion, block(program, "Management Version: five"));
});

test("remote-entry-count and remote-entry-get give what there is", () => {
  assertEquals(parseRemoteEntryCount(block("3")), 3);
  refuses(parseRemoteEntryCount, block(), block("x"), block("1", "2"), success("3"));
  assertEquals(parseRemoteEntries(block()), []);
  const lines = ["0,127.0.0.9,4444,udp4,enabled", "1,2001:db8::1,openvpn,tcp6-client,disabled"];
  assertEquals(parseRemoteEntries(block(...lines, "2,a,b,1194,udp,enabled")), [
    { index: 0, host: "127.0.0.9", port: "4444", protocol: "udp4", enabled: true },
    { index: 1, host: "2001:db8::1", port: "openvpn", protocol: "tcp6-client", enabled: false },
    { index: 2, host: "a,b", port: "1194", protocol: "udp", enabled: true },
  ]);
  for (const bad of ["", "0", "0,h,1,udp,on", "x,h,1,udp,enabled", "0,1,udp,enabled", ",,,,"]) {
    refuses(parseRemoteEntries, block(bad), block("0,h,1,udp,enabled", bad));
  }
});

test("pkcs11-id-count and pkcs11-id-get give what there is", () => {
  const lines = linesOf("pkcs11");
  const count = lines.find((line) => line.startsWith("PKCS11ID-COUNT"));
  assertEquals(parsePkcs11Count(block(count ?? "")), 2);
  const [first, second, none] = lines.filter((line) => line.startsWith("PKCS11ID-ENTRY"))
    .map((line) => parsePkcs11Entry(block(line)));
  assertEquals([first?.index, second?.index, none], [0, 1, undefined]);
  assertEquals(
    second?.id,
    String.raw`SoftHSM\x20project/SoftHSM\x20v2/19aabe4a7ca182fb/Lab\x20Token/02`,
  );
  assert(/^MII[\w+/]+=*$/.test(first?.blob ?? ""));
  refuses(parsePkcs11Count, block(), block("PKCS11ID-COUNT:x"), success("2"));
  refuses(parsePkcs11Entry, block(), block("PKCS11ID-ENTRY:'x'"), block("PKCS11ID-COUNT:2"));
});

test("push-update gives how many, in whichever line", () => {
  const count = "1 client(s) updated";
  assertEquals(parseUpdateCount({ success: count, lines: [] }), 1);
  const verdict = "push-update command succeeded";
  assertEquals(parseUpdateCount({ success: verdict, lines: [count] }), 1);
  assertEquals(parseUpdateCount({ success: verdict, lines: [`SUCCESS: ${count}`] }), 1);
  refuses(parseUpdateCount, success(verdict), block("no client updated"));
});

test("every recorded reply is read", () => {
  assert(recorded(parsePid, "pid=").every((pid) => Number(pid) > 1));
  assertEquals(recorded(parseHold, "hold=").sort(), [false, true]);
  assert(recorded(parseVerb, "verb=").includes(3));
  assertEquals(recorded(parseMute, "mute="), [0]);
  assert(recorded(parseAuthRetry, "auth-retry=").includes("interact"));
  assert(recorded(parseEnvFilter, "env_filter_level=").length > 1);
  for (const count of recorded(parseKillCount, "common name")) assertEquals(count, 1);
  assertEquals(recorded(parseKillCount, "1 client(s) at"), [1, 1]);
  const stats = recordings().flatMap(({ name }) => linesOf(name)).filter((line) =>
    line.startsWith("SUCCESS: nclients=")
  );
  for (const line of new Set(stats)) {
    const reply = success(line.slice("SUCCESS: ".length));
    if (line.includes(",")) parseLoadStats(reply);
    else parseClientCount(reply);
  }
  assertEquals(parseRemoteEntries(block(...linesOf("query-remote").slice(5, 8))).length, 3);
  for (const [name, version] of [["hold-basics", "2.6.14"], ["v27-basics", "2.7.6"]]) {
    const lines = linesOf(name!);
    const from = lines.findIndex((line) => line.startsWith("OpenVPN Version: "));
    const { openvpn, management } = parseVersion(block(...lines.slice(from, from + 2)));
    assertEquals(openvpn.version, version);
    assertEquals(management, version === "2.6.14" ? 5 : 6);
  }
});

test("an error does not repeat the reply", () => {
  for (const [name, parse] of Object.entries(PARSERS)) {
    const error = assertThrows(
      () => parse({ success: "s3cret", lines: ["s3cret"] }),
      ManagementError,
    );
    assert(!`${error}`.includes("s3cret"), name);
  }
});

test("any other reply is refused by the one error", () => {
  const replies = [
    ...["pid=42", "hold=1", "verb=3", "auth-retry=none", "1 client(s) updated"],
    "nclients=2,bytesin=5810,bytesout=6013",
    "common name 'END' found, 1 client(s) killed",
    "0,127.0.0.9,4444,udp4,enabled",
    "PKCS11ID-ENTRY:'0', ID:'a', BLOB:'b'",
    "OpenVPN Version: OpenVPN 2.6.14",
  ];
  const piece = fc.oneof(
    fc.constantFrom(",", "=", "'", "9".repeat(40)),
    fc.string({ maxLength: 8 }),
  );
  const text = fc.tuple(fc.constantFrom(...replies), fc.nat(60), fc.nat(8), piece).map(
    ([reply, at, cut, piece]) => reply.slice(0, at) + piece + reply.slice(at + cut),
  );
  fc.assert(
    fc.property(text, fc.array(text, { maxLength: 3 }), (success, lines) => {
      for (const [name, parse] of Object.entries(PARSERS)) {
        try {
          parse({ success, lines });
        } catch (error) {
          assert(
            error instanceof ManagementError && error.code === "protocol",
            `${name}: ${error}`,
          );
        }
      }
    }),
    { seed: 4, numRuns: 1000 },
  );
});
