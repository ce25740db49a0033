/** The text forms of addresses: what they mean, what comes back, and what is refused. */
import { assert, assertEquals, assertThrows } from "@std/assert";
import process from "node:process";
import { test } from "node:test";
import { checkUnixPath, UNIX_PATH_BYTES } from "../adapters/_unix_file.ts";
import {
  formatAddress,
  inetAddress,
  isIP,
  isIPv6,
  parseAddress,
  toAddress,
  toInetAddress,
} from "../adapters/address.ts";
import { type Address, ConnectError } from "../adapters/types.ts";

/** Every text stands for its address, and is what the address is written as. */
const FORMS: readonly (readonly [string, Address])[] = [
  ["127.0.0.1:7505", { hostname: "127.0.0.1", port: 7505 }],
  ["0.0.0.0:0", { hostname: "0.0.0.0", port: 0 }],
  ["255.255.255.255:65535", { hostname: "255.255.255.255", port: 65535 }],
  ["localhost:80", { hostname: "localhost", port: 80 }],
  ["vpn-1.example.org:1194", { hostname: "vpn-1.example.org", port: 1194 }],
  ["host_1:1", { hostname: "host_1", port: 1 }],
  ["vpn.example.org.:1", { hostname: "vpn.example.org.", port: 1 }],
  ["bücher.example:1", { hostname: "bücher.example", port: 1 }],
  ["[::]:0", { hostname: "::", port: 0 }],
  ["[::1]:7505", { hostname: "::1", port: 7505 }],
  ["[2001:db8::1]:1194", { hostname: "2001:db8::1", port: 1194 }],
  ["[::ffff:192.0.2.1]:1", { hostname: "::ffff:192.0.2.1", port: 1 }],
  ["[fe80::1%eth0]:7505", { hostname: "fe80::1%eth0", port: 7505 }],
  ["[fe80::1%br-lan.7]:7505", { hostname: "fe80::1%br-lan.7", port: 7505 }],
  ["[fe80::1%2]:0", { hostname: "fe80::1%2", port: 0 }],
  ["/run/x.sock", { path: "/run/x.sock" }],
  ["/", { path: "/" }],
  ["/a b/é:1", { path: "/a b/é:1" }],
  ["unix:relative.sock", { path: "relative.sock" }],
  ["unix:./relative.sock", { path: "./relative.sock" }],
  ["unix:127.0.0.1:7505", { path: "127.0.0.1:7505" }],
  ["unix:unix:x", { path: "unix:x" }],
  ["unix:@name", { path: "\0name" }],
  ["unix:@@", { path: "\0@" }],
  ["unix:@a b/c", { path: "\0a b/c" }],
];

/** What a hostile or hurried hand may write. */
const BAD_TEXTS = [
  "",
  " ",
  ":",
  ":80",
  "localhost",
  "localhost:",
  "127.0.0.1",
  "host:-1",
  "host:+1",
  "host:1.0",
  "host:1e3",
  "host:0x50",
  "host:65536",
  "host:100000",
  "host:٣",
  "host: 1",
  "host:1 ",
  "host:1\n",
  "ho st:1",
  "ho\tst:1",
  "ho\nst:1",
  "host\0:1",
  "host\x7f:1",
  "user@host:1",
  "host%00:1",
  "host/path:1",
  "host\\:1",
  "host?:1",
  "host#:1",
  "tcp://host:1",
  "http://127.0.0.1:80/",
  // Resolvers would read these as other addresses than a person does.
  "127.1:80",
  "2130706433:80",
  "010.0.0.1:80",
  "1.2.3.256:80",
  "1.2.3.4.5:80",
  "1..2.3:80",
  "::1:7505",
  "::1",
  "[::1]",
  "[::1]:",
  "[::1]7505",
  "[::1]:65536",
  "[]:1",
  "[:]:1",
  "[:::]:1",
  "[127.0.0.1]:1",
  "[localhost]:1",
  "[::1:1",
  "::1]:1",
  "[[::1]]:1",
  "[1:2:3:4:5:6:7:8:9]:1",
  "[12345::]:1",
  "[g::]:1",
  "[fe80::1%]:1",
  "[fe80::1%eth0%1]:1",
  "[fe80::1%eth/0]:1",
  "[fe80::1%eth 0]:1",
  "unix:",
  "unix:@",
  "\0",
  "/run/x\0.sock",
  "unix:x\0",
  "unix:@x\0y",
  "\0x\0y",
];

function refused(call: () => unknown): ConnectError {
  const error = assertThrows(call, ConnectError);
  assertEquals(error.code, "invalid-address");
  return error;
}

test("parseAddress() and formatAddress() are each other's inverse", () => {
  for (const [text, address] of FORMS) {
    assertEquals(parseAddress(text), address, text);
    assertEquals(formatAddress(address), text);
    assertEquals(toAddress(text), address);
    assertEquals(toAddress(address), address);
  }
});

test("parseAddress() takes an abstract name with its NUL as well", () => {
  assertEquals(parseAddress("\0name"), { path: "\0name" });
  assertEquals(formatAddress(parseAddress("\0name")), "unix:@name");
});

test("parseAddress() reads an absolute path after unix: and leading zeros of a port", () => {
  assertEquals(parseAddress("unix:/run/x.sock"), { path: "/run/x.sock" });
  assertEquals(parseAddress("host:00080"), { hostname: "host", port: 80 });
});

test("formatAddress() keeps a relative path that starts with @ a path", () => {
  assertEquals(formatAddress({ path: "@name" }), "unix:./@name");
  assertEquals(parseAddress("unix:./@name"), { path: "./@name" });
});

test("parseAddress() refuses everything else with invalid-address, and quotes it", () => {
  for (const text of BAD_TEXTS) {
    const { message } = refused(() => parseAddress(text));
    assert(message.startsWith("address "), message);
    // A message goes to logs, a line each.
    assert([...message].every((character) => character >= " "), JSON.stringify(message));
  }
});

test("parseAddress() refuses what is no string", () => {
  for (const value of [undefined, null, 7505, {}, ["/x"], true]) {
    refused(() => parseAddress(value as unknown as string));
  }
});

test("parseAddress() answers long input at once", () => {
  for (const part of ["1", "1.", ":", "[", "[::1]", "a.", "%", "0".repeat(7)]) {
    const text = part.repeat(200_000);
    refused(() => parseAddress(text));
    refused(() => parseAddress(`[${text}]:1`));
  }
});

test("toAddress() and toInetAddress() check an object as a text is checked", () => {
  for (const path of ["", "\0", "/run/x\0", "\0a\0"]) refused(() => toAddress({ path }));
  for (
    const hostname of ["", "a b", "[::1]", "127.1", ":::", "a%b", "fe80::1%", "a/b", "::1%a/b"]
  ) {
    refused(() => toAddress({ hostname, port: 1 }));
    refused(() => toInetAddress({ hostname, port: 1 }));
  }
  for (const port of [-1, 65536, 1.5, NaN, Infinity, "80" as unknown as number]) {
    const { message } = refused(() => toAddress({ hostname: "host", port }));
    assert(message.includes("0 to 65535"), message);
  }
  refused(() => toAddress({ port: 1 } as unknown as Address));
});

test("toInetAddress() takes no path", () => {
  for (const text of ["/run/x.sock", "unix:x", "unix:@x"]) refused(() => toInetAddress(text));
  assertEquals(toInetAddress("[::1]:53"), { hostname: "::1", port: 53 });
});

test("toAddress() drops what an address does not have", () => {
  const more = { hostname: "host", port: 1, secret: "x" };
  assertEquals(toAddress(more), { hostname: "host", port: 1 });
  assertEquals(toAddress({ path: "/x", secret: "x" } as Address), { path: "/x" });
});

test("isIP() and isIPv6() tell literals from names", () => {
  for (const host of ["::", "::1", "2001:db8::1", "::ffff:1.2.3.4", "fe80::1%eth0"]) {
    assert(isIPv6(host) && isIP(host), host);
  }
  for (const host of ["0.0.0.0", "127.0.0.1", "255.255.255.255"]) {
    assert(!isIPv6(host) && isIP(host), host);
  }
  for (const host of ["", "localhost", "1.2.3", "256.1.1.1", "01.2.3.4", "[::1]", ":", "::1%"]) {
    assert(!isIPv6(host) && !isIP(host), host);
  }
});

test("inetAddress() gives a v4 peer of a dual-stack socket its v4 address", () => {
  assertEquals(inetAddress("::ffff:192.0.2.7", 5), { hostname: "192.0.2.7", port: 5 });
  assertEquals(inetAddress("::FFFF:192.0.2.7", 5), { hostname: "192.0.2.7", port: 5 });
  assertEquals(inetAddress("::1", 5), { hostname: "::1", port: 5 });
  assertEquals(inetAddress("2001:db8::ffff:1", 5), { hostname: "2001:db8::ffff:1", port: 5 });
});

test("checkUnixPath() counts bytes, not characters, and the NUL of an abstract name", () => {
  const most = UNIX_PATH_BYTES[process.platform === "linux" ? "linux" : "darwin"];
  for (const path of [`/${"x".repeat(most - 1)}`, `/x${"é".repeat((most - 1) / 2 - 0.5)}`]) {
    checkUnixPath(path);
    const { message } = refused(() => checkUnixPath(`${path}xx`));
    assert(message.includes(`at most ${most}`), message);
  }
  if (process.platform === "linux") checkUnixPath(`\0${"x".repeat(most - 1)}`);
  refused(() => checkUnixPath(`\0${"x".repeat(most)}`));
});
