/** Rows out of status reports: of every recording, of every version, and of names made to mislead. */
import { assert, assertEquals, assertThrows } from "@std/assert";
import {
  Demuxer,
  ManagementError,
  parseStatus,
  type Status,
  type StatusClient,
} from "@trunkline/sockets/ovpn";
import fc from "fast-check";
import { test } from "node:test";
import { readAddress } from "../ovpn/status_row.ts";
import { recordings } from "./ovpn_recordings.ts";

/** The reports that a recorded session has, without `END`. */
function reportsOf(name: string): string[][] {
  const bytes = recordings().find((recording) => recording.name === name)?.bytes;
  assert(bytes !== undefined, name);
  const demuxer = new Demuxer();
  const lines = [...demuxer.push(bytes), ...demuxer.end()].filter(({ kind }) => kind === "reply")
    .map(({ line }) => new TextDecoder().decode(line));
  const reports: string[][] = [];
  for (let i = 0; i < lines.length; i++) {
    if (!/^(?:TITLE[,\t]|OpenVPN (?:CLIENT LIST|STATISTICS)$)/.test(lines[i]!)) continue;
    const end = lines.indexOf("END", i);
    reports.push(lines.slice(i, end));
    i = end;
  }
  return reports;
}

/** The last report of a format in a recording. */
function last(name: string, format: Status["format"]): Status {
  const found = reportsOf(name).map(parseStatus).findLast((status) => status.format === format);
  assert(found !== undefined, `${name} has no status ${format}`);
  return found;
}

const V3_CLIENTS = [
  ...["HEADER", "CLIENT_LIST", "Common Name", "Real Address", "Virtual Address"],
  ...["Virtual IPv6 Address", "Bytes Received", "Bytes Sent", "Connected Since"],
  ...["Connected Since (time_t)", "Username", "Client ID", "Peer ID", "Data Channel Cipher"],
].join("\t");

/** The only client of a report in format 3 with `row`. */
function client(row: readonly string[], header = V3_CLIENTS): StatusClient {
  const status = parseStatus(["TITLE\tx", header, ["CLIENT_LIST", ...row].join("\t")]);
  assertEquals(status.unparsed, []);
  assertEquals(status.clients.length, 1);
  return status.clients[0]!;
}

/** The columns of a client in format 3, some of them changed. */
function row(changed: Readonly<Record<number, string>> = {}): string[] {
  const columns = ["alice", "192.0.2.1:1194", "10.8.0.2", "fd00::2", "10", "20"];
  columns.push("2026-11-21 00:27:29", "1795220849", "al", "7", "3", "AES-256-GCM");
  return columns.map((column, i) => changed[i] ?? column);
}

test("parseStatus() reads every report that was recorded, but for rows with commas in names", () => {
  const counts = new Map<string, number>();
  for (const { name } of recordings()) {
    for (const lines of reportsOf(name)) {
      const status = parseStatus(lines);
      counts.set(`${status.format}`, (counts.get(`${status.format}`) ?? 0) + 1);
      for (const line of status.unparsed) assertEquals(name, "hostile-names", line);
      const { clients, routes, unparsed, counters } = status;
      const tables = lines.filter((line) => /^(?:CLIENT_LIST|ROUTING_TABLE)\W/.test(line));
      if (status.format === 2 || status.format === 3) {
        assertEquals(clients.length + routes.length + unparsed.length, tables.length, name);
        assert(status.title?.startsWith("OpenVPN 2."));
        assertEquals(typeof status.time?.seconds, "number");
      }
      if (status.format === "p2p") assertEquals(counters.size, 5);
      else assert(status.globals.has("Max bcast/mcast queue length"));
      assertEquals(status.time?.text.slice(0, 8), "2026-11-");
    }
  }
  assertEquals([...counts.keys()].sort(), ["1", "2", "3", "p2p"]);
  assert([...counts.values()].every((count) => count >= 4));
});

test("parseStatus() reads the same of formats 1, 2 and 3", () => {
  // The first three, which were made in the same second.
  const [one, two, three] = reportsOf("server-client-auth").map(parseStatus);
  assert(one?.format === 1 && two?.format === 2 && three?.format === 3);
  const rows = ({ clients, routes }: Status) => ({
    clients: clients.map(({ raw: _, ...rest }) => rest),
    routes: routes.map(({ raw: _, ...rest }) => rest),
  });
  assertEquals(rows(two), rows(three));
  assertEquals(two.globals, three.globals);
  const known = ({ clients }: Status) =>
    clients.map((it) => [it.commonName, it.realAddress, it.bytesReceived, it.bytesSent]);
  assertEquals(known(one), known(three));
  assertEquals(one.clients[0]?.connectedSince?.text, three.clients[0]?.connectedSince?.text);
  assertEquals(one.clients[0]?.clientId, undefined);
  assertEquals(one.clients[0]?.username, undefined);
  assertEquals(one.clients[0]?.authenticated, undefined);
});

test("parseStatus() reads clients, routes and the rest of format 3", () => {
  const status = last("server-client-auth", 3);
  const { clients: [alice, bob], routes, title, time, globals } = status;
  assertEquals(alice, {
    clientId: "0",
    peerId: 0,
    commonName: "alice",
    username: "alice",
    realAddress: {
      text: "198.51.100.18:39131",
      protocol: undefined,
      address: "198.51.100.18",
      port: 39131,
    },
    virtualAddress: "10.8.0.2",
    virtualAddress6: "fd00:8::1000",
    bytesReceived: 2931,
    bytesSent: 3019,
    connectedSince: { text: "2026-11-21 00:24:14", seconds: 1795220654 },
    cipher: "AES-256-GCM",
    authenticated: true,
    raw: alice?.raw ?? "",
  });
  assert(alice?.raw.startsWith("CLIENT_LIST\talice\t198.51.100.18:39131\t10.8.0.2\t"));
  assertEquals([bob?.commonName, bob?.username, bob?.clientId], ["bob smith", "bob", "1"]);
  assertEquals(
    routes.map((route) => [route.kind, route.address, route.prefixLength, route.cached]),
    [
      ["host", "fd00:8::1001", undefined, false],
      ["host", "10.8.0.3", undefined, false],
      ["host", "10.50.0.9", undefined, true],
      ["subnet", "fd00:50::", 64, false],
      ["subnet", "10.50.0.0", 24, false],
      ["host", "fd00:8::1000", undefined, false],
      ["host", "10.8.0.2", undefined, false],
    ],
  );
  assertEquals(routes[2]?.commonName, "alice");
  assertEquals(routes[2]?.realAddress.port, 39131);
  assertEquals(routes[2]?.lastRef, { text: "2026-11-21 00:24:17", seconds: 1795220657 });
  assertEquals(title?.slice(0, 14), "OpenVPN 2.6.14");
  assertEquals(time?.text, "2026-11-21 00:24:18");
  assertEquals([...globals], [["Max bcast/mcast queue length", "0"], ["dco_enabled", "0"]]);
});

test("parseStatus() reads the addresses of OpenVPN 2.7", () => {
  for (const format of [1, 2, 3] as const) {
    const { clients: [bob] } = last("v27-server", format);
    assertEquals(bob?.realAddress, {
      text: "udp4:127.0.0.1:54963",
      protocol: "udp4",
      address: "127.0.0.1",
      port: 54963,
    });
    assertEquals(bob?.username, undefined);
  }
});

test("an address is read in every form, and kept as text in any other", () => {
  const read = (text: string) => {
    const { text: kept, protocol, address, port } = readAddress(text);
    assertEquals(kept, text);
    return [protocol, address, port];
  };
  assertEquals(read("192.0.2.1:1194"), [undefined, "192.0.2.1", 1194]);
  assertEquals(read("192.0.2.1"), [undefined, "192.0.2.1", undefined]);
  assertEquals(read("2001:db8::2"), [undefined, "2001:db8::2", undefined]);
  assertEquals(read("::1"), [undefined, "::1", undefined]);
  assertEquals(read("[2001:db8::2]:443"), [undefined, "2001:db8::2", 443]);
  assertEquals(read("udp4:192.0.2.1:1194"), ["udp4", "192.0.2.1", 1194]);
  assertEquals(read("udp6:[2001:db8::2]:1194"), ["udp6", "2001:db8::2", 1194]);
  assertEquals(read("tcp6-server:[2001::2]:1194"), ["tcp6-server", "2001::2", 1194]);
  assertEquals(read("udp6:2001:db8::2"), ["udp6", "2001:db8::2", undefined]);
  assertEquals(read("tcp6-server:[2001::2]"), ["tcp6-server", "2001::2", undefined]);
  assertEquals(read("192.0.2.1:65536"), [undefined, "192.0.2.1:65536", undefined]);
  for (const odd of ["", ":", "::", ":1", "udp4", "[", "]", "a:b", "[]"]) read(odd);
});

test("a route is a host, a subnet or an Ethernet address", () => {
  const route = (address: string) => {
    const header = "HEADER\tROUTING_TABLE\tVirtual Address\tCommon Name\tReal Address";
    const line = `ROUTING_TABLE\t${address}\tUNDEF\t2001:db8::2`;
    const { routes: [found] } = parseStatus(["TITLE\tx", header, line]);
    assertEquals([found?.commonName, found?.lastRef, found?.raw], [undefined, undefined, line]);
    return [found?.kind, found?.address, found?.prefixLength, found?.vlan, found?.cached];
  };
  assertEquals(route("10.8.0.2"), ["host", "10.8.0.2", undefined, undefined, false]);
  assertEquals(route("10.8.0.2C"), ["host", "10.8.0.2", undefined, undefined, true]);
  assertEquals(route("fd00::cC"), ["host", "fd00::c", undefined, undefined, true]);
  assertEquals(route("fd00::/64"), ["subnet", "fd00::", 64, undefined, false]);
  assertEquals(route("aa:bb:cc:00:11:22"), [
    "mac",
    "aa:bb:cc:00:11:22",
    undefined,
    undefined,
    false,
  ]);
  assertEquals(route("aa:bb:cc:00:11:cc@5C"), ["mac", "aa:bb:cc:00:11:cc", undefined, 5, true]);
  assertEquals(route("a:b:c:d:e:f:1:2"), ["host", "a:b:c:d:e:f:1:2", undefined, undefined, false]);
});

test("columns are found by their titles", () => {
  const titles = V3_CLIENTS.split("\t").slice(2);
  const backwards = client(
    row().toReversed(),
    ["HEADER", "CLIENT_LIST", ...titles.toReversed()].join("\t"),
  );
  const { raw: _, ...rest } = backwards;
  const { raw: __, ...same } = client(row());
  assertEquals(rest, same);
  // OpenVPN 2.3, which knew no client ids.
  const old = [
    "TITLE,OpenVPN 2.3.18",
    "TIME,Thu Jun 18 08:12:15 2015,1434615135",
    "HEADER,CLIENT_LIST,Common Name,Real Address,Virtual Address,Bytes Received,Bytes Sent," +
    "Connected Since,Connected Since (time_t),Username",
    "CLIENT_LIST,alice,192.0.2.1:4096,10.8.0.6,10,20,Thu Jun 18 04:23:03 2015,1434601383,UNDEF",
  ];
  const { clients, time, unparsed } = parseStatus(old);
  assertEquals(unparsed, []);
  assertEquals(time, { text: "Thu Jun 18 08:12:15 2015", seconds: 1434615135 });
  assertEquals(clients[0]?.clientId, undefined);
  assertEquals(clients[0]?.peerId, undefined);
  assertEquals(clients[0]?.virtualAddress6, undefined);
  assertEquals(clients[0]?.cipher, undefined);
  assertEquals(clients[0]?.authenticated, true);
  assertEquals(clients[0]?.connectedSince?.seconds, 1434601383);
});

test("a client that is still to be authenticated is told apart", () => {
  const { clients: [waiting] } = last("overlong-env-line", 2);
  assertEquals(waiting?.authenticated, false);
  assertEquals([waiting?.virtualAddress, waiting?.cipher], [undefined, "BF-CBC"]);
  assertEquals(client(row()).authenticated, true);
  assertEquals(client(row({ 2: "", 3: "" })).authenticated, true);
  assertEquals(client(row({ 2: "", 11: "BF-CBC" })).authenticated, true);
  assertEquals(client(row({ 2: "", 3: "", 11: "BF-CBC" })).authenticated, false);
  // Before 2.5 the cipher is not told.
  const header = V3_CLIENTS.slice(0, V3_CLIENTS.lastIndexOf("\t"));
  assertEquals(client(row({ 2: "", 3: "" }).slice(0, -1), header).authenticated, undefined);
});

test("UNDEF is no name", () => {
  const undef = client(row({ 0: "UNDEF", 8: "UNDEF" }));
  assertEquals([undef.commonName, undef.username], [undefined, undefined]);
  const empty = client(row({ 0: "", 8: "" }));
  assertEquals([empty.commonName, empty.username], ["", ""]);
});

test("numbers are exact up to 64 bits", () => {
  const most = "18446744073709551615";
  const big = client(row({ 4: "9007199254740991", 5: "9007199254740992", 9: most }));
  assertEquals(big.bytesReceived, 9007199254740991);
  assertEquals(big.bytesSent, 9007199254740992n);
  assertEquals(big.clientId, most);
  const { counters } = parseStatus(["OpenVPN STATISTICS", `Auth read bytes,${most}`]);
  assertEquals(counters.get("Auth read bytes"), 18446744073709551615n);
});

test("hostile names are names in format 3", () => {
  const status = last("hostile-names", 3);
  assertEquals(status.unparsed, []);
  const names = ["SUCCESS: x", ">FATAL:boo", "END", "a,bc", "ERROR: no, really"];
  assertEquals(status.clients.map(({ commonName }) => commonName), names);
  assertEquals(status.clients.map(({ username }) => username), names);
  assertEquals(status.clients.map(({ clientId }) => clientId), ["2", "0", "1", "3", "4"]);
  assertEquals(status.routes.length, 5);
});

test("rows that a name has shifted are kept unparsed in formats 1 and 2", () => {
  const two = last("hostile-names", 2);
  assertEquals(two.clients.map(({ clientId }) => clientId), ["2", "0", "1"]);
  assertEquals(two.routes.length, 3);
  assertEquals(two.unparsed.map((line) => line.split(",").slice(0, 3)), [
    ["CLIENT_LIST", "a", "bc"],
    ["CLIENT_LIST", "ERROR: no", " really"],
    ["ROUTING_TABLE", "10.8.0.5", "a"],
    ["ROUTING_TABLE", "10.8.0.6", "ERROR: no"],
  ]);
  // The row of `>FATAL:boo` is an event: no reply line.
  const one = last("hostile-names", 1);
  assertEquals(one.clients.map(({ commonName }) => commonName), ["SUCCESS: x", "END"]);
  assertEquals(one.routes.map(({ commonName }) => commonName), ["END", ">FATAL:boo", "SUCCESS: x"]);
  assertEquals(one.unparsed.length, 4);
});

test("a name cannot open a section or a table", () => {
  const shown = (name: string) => [
    "OpenVPN CLIENT LIST",
    "Updated,2026-11-21 00:27:32",
    "Common Name,Real Address,Bytes Received,Bytes Sent,Connected Since",
    `${name},192.0.2.1:1,10,20,2026-11-21 00:27:29`,
    "ROUTING TABLE",
    "Virtual Address,Common Name,Real Address,Last Ref",
    `10.8.0.2,${name},192.0.2.1:1,2026-11-21 00:27:29`,
    "GLOBAL STATS",
    "Max bcast/mcast queue length,4",
  ];
  for (const name of ["ROUTING TABLE", "GLOBAL STATS", "END", "Updated", "Common Name", "HEADER"]) {
    const { clients, routes, globals, unparsed } = parseStatus(shown(name));
    assertEquals(clients.map(({ commonName }) => commonName), [name]);
    assertEquals(routes.map(({ commonName }) => commonName), [name]);
    assertEquals([globals.size, unparsed], [1, []]);
  }
});

test("what is not understood is kept", () => {
  const bad = [
    row({ 4: "ten" }),
    row({ 5: "" }),
    row({ 7: "yesterday" }),
    row({ 9: "01" }),
    row({ 9: "18446744073709551616" }),
    row({ 10: "-1" }),
    row().slice(1),
    [...row(), ""],
  ].map((columns) => ["CLIENT_LIST", ...columns].join("\t"));
  const before = ["CLIENT_LIST\tearly", "ROUTING_TABLE\tearly", "HEADER\tNEWS\tColumn", "NEWS\tx"];
  const twice = ["TITLE\ty", "TIME\t2", "GLOBAL_STATS\ta\t2", "GLOBAL_STATS", "odd"];
  const status = parseStatus([
    ...["TITLE\tx", ...before, "TIME\t1", "GLOBAL_STATS\ta\t1", V3_CLIENTS],
    ...[...bad, ...twice, "END", "", "after"],
  ]);
  assertEquals(status.unparsed, [...before, ...bad, ...twice, "after"]);
  assertEquals(status.clients, []);
  assertEquals([...status.globals], [["a", "1"]]);
  assertEquals(status.time, { text: "1", seconds: undefined });
  const poor = "HEADER\tCLIENT_LIST\tCommon Name";
  assertEquals(parseStatus(["TITLE\tx", poor, "CLIENT_LIST\ta"]).unparsed, [
    poor,
    "CLIENT_LIST\ta",
  ]);
  const p2p = ["OpenVPN STATISTICS", "a,1", "a,2", "TAP driver,up", "b"];
  assertEquals(parseStatus(p2p).unparsed, ["a,2", "TAP driver,up", "b"]);
});

test("END may be there or not", () => {
  for (const name of ["server-client-auth", "client-lifecycle", "v27-server"]) {
    for (const lines of reportsOf(name)) {
      assertEquals(parseStatus([...lines, "END"]), parseStatus(lines));
      // What splitting a file at its line ends gives.
      assertEquals(parseStatus(["", ...lines, "END", ""]), parseStatus(lines));
    }
  }
});

test("parseStatus() throws for what is no report", () => {
  const reports = [[], [""], ["END"], ["SUCCESS: pid=42"], ["TITLE"], ["OpenVPN CLIENT LIST,"]];
  for (const lines of [...reports, ["x", "TITLE,y"]]) {
    assertEquals(assertThrows(() => parseStatus(lines), ManagementError).code, "protocol");
  }
  for (const line of ["TITLE,", "TITLE\t", "OpenVPN CLIENT LIST", "OpenVPN STATISTICS"]) {
    assertEquals(parseStatus([line]).unparsed, []);
  }
});

test("10,000 clients are read, each with its own numbers", () => {
  const lines = ["TITLE\tx", V3_CLIENTS];
  for (let i = 0; i < 10_000; i++) {
    lines.push(["CLIENT_LIST", ...row({ 0: `user ${i}`, 4: `${i}`, 9: `${i}` })].join("\t"));
  }
  const { clients, unparsed } = parseStatus(lines);
  assertEquals([clients.length, unparsed.length], [10_000, 0]);
  clients.forEach(({ clientId, commonName, bytesReceived }, i) => {
    assert(clientId === `${i}` && commonName === `user ${i}` && bytesReceived === i, `${i}`);
  });
});

test("any mutation of a report is read without a row lost, or refused by the one error", () => {
  const reports = recordings().flatMap(({ name }) => reportsOf(name));
  const piece = fc.oneof(
    fc.constantFrom(",", "\t", "END", "\u0000", "UNDEF", "HEADER", "9".repeat(40), "\n", ":", "["),
    fc.string({ unit: "binary", maxLength: 8 }),
  );
  const edit = fc.record({
    line: fc.nat(),
    at: fc.nat(),
    cut: fc.nat(12),
    piece,
    drop: fc.boolean(),
  });
  fc.assert(
    fc.property(fc.nat(), fc.array(edit, { maxLength: 12 }), (which, edits) => {
      const lines = [...reports[which % reports.length]!];
      for (const { line, at, cut, piece, drop } of edits) {
        const i = line % (lines.length || 1);
        const text = lines[i] ?? "";
        const from = at % (text.length + 1);
        if (drop) lines.splice(i, 1);
        else lines[i] = text.slice(0, from) + piece + text.slice(from + cut);
      }
      let status: Status;
      try {
        status = parseStatus(lines);
      } catch (error) {
        assert(error instanceof ManagementError && error.code === "protocol", `${error}`);
        return;
      }
      const kept = new Set([...status.clients, ...status.routes].map(({ raw }) => raw));
      for (const line of status.unparsed) kept.add(line);
      for (const line of lines) {
        if (/^(?:CLIENT_LIST|ROUTING_TABLE)[,\t]/.test(line) && typeof status.format === "number") {
          assert(kept.has(line), line);
        }
      }
    }),
    { seed: 4, numRuns: 3000 },
  );
});

test("any lines at all are read, or refused by the one error", () => {
  const start = fc.constantFrom("TITLE,", "TITLE\t", "OpenVPN CLIENT LIST", "OpenVPN STATISTICS");
  const lines = fc.array(fc.string({ unit: "binary", maxLength: 60 }), { maxLength: 20 });
  fc.assert(
    fc.property(start, lines, (first, rest) => {
      parseStatus([first, ...rest]);
      try {
        parseStatus(rest);
      } catch (error) {
        assert(error instanceof ManagementError && error.code === "protocol", `${error}`);
      }
    }),
    { seed: 4, numRuns: 1000 },
  );
});
