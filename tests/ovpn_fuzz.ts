/** Input for fuzzing, by seed: what no OpenVPN sends, and what one sent, damaged. */
import { concat } from "@std/bytes";
import { randomOf } from "./mux_peer.ts";
import { recordings } from "./ovpn_recordings.ts";

/** The same choices for the same seed. */
export class Luck {
  readonly #next: () => number;

  constructor(seed: number) {
    this.#next = randomOf(seed);
  }

  /** A whole number from 0 to `limit` - 1. */
  below(limit: number): number {
    return Math.floor(this.#next() * limit);
  }

  /** True one time in `times`. */
  oneIn(times: number): boolean {
    return this.below(times) === 0;
  }

  pick<T>(list: readonly T[]): T {
    return list[this.below(list.length)]!;
  }

  /** Mostly small, sometimes large. */
  size(limit: number): number {
    return this.below(1 + this.below(1 + this.below(limit)));
  }

  times<T>(limit: number, make: () => T): T[] {
    return Array.from({ length: this.below(limit + 1) }, make);
  }
}

const encoder = new TextEncoder();
const LF = 10;
/** Where OpenVPN cuts a message, and near it. */
const LONG_SIZES = [10237, 10238, 10239, 10240, 20478, 20479, 40000];
/** So that a round takes no longer than others. */
const MAX_WINDOW_BYTES = 8192;

const RECORDED = recordings().map(({ bytes }) => bytes);
const RECORDED_LINES = RECORDED.flatMap((bytes) => {
  const lines: Uint8Array[] = [];
  for (let start = 0, end: number; start < bytes.length; start = end + 1) {
    end = bytes.indexOf(LF, start);
    if (end < 0) end = bytes.length;
    lines.push(bytes.subarray(start, Math.min(end + 1, bytes.length)));
  }
  return lines;
});

const KEYWORDS =
  ("STATE LOG ECHO HOLD INFO FATAL BYTECOUNT BYTECOUNT_CLI CLIENT UPDOWN PASSWORD NEED-OK NEED-STR NEED-CERTIFICATE PK_SIGN RSA_SIGN " +
    "PROXY REMOTE INFOMSG NOTIFY PKCS11ID-COUNT PKCS11ID-ENTRY __proto__ toString").split(" ");

/** What has a meaning somewhere in the protocol. */
const TOKENS = [
  ...KEYWORDS.flatMap((keyword) => [`>${keyword}:`, keyword, `${keyword}:`]),
  ...[
    "SUCCESS: ",
    "ERROR: ",
    "END",
    "\nEND\r\n",
    "ENTER PASSWORD:",
    ">",
    ":",
    ",",
    "\t",
    "=",
    "'",
    '"',
  ],
  ...[
    "CONNECT,",
    "REAUTH,",
    "ESTABLISHED,",
    "DISCONNECT,",
    "ADDRESS,",
    "CR_RESPONSE,",
    "ENV,",
    "ENV,END",
  ],
  ...[
    "Need '",
    "' username/password",
    "' password",
    " SC:1,",
    "Verification Failed: '",
    "' ['CRV1:R,E:s:dQ==:",
    "']",
  ],
  ...[
    "Auth-Token:",
    "' confirmation MSG:",
    "' string MSG:",
    "WEB_AUTH:",
    "OPEN_URL:",
    "CR_TEXT:E,R:",
  ],
  ...[
    "RSA_PKCS1_PSS_PADDING,hashalg=SHA256,saltlen=digest",
    "UP",
    "DOWN",
    "'0', ID:'",
    "', BLOB:'",
  ],
  ...[
    "TITLE\t",
    "TITLE,",
    "TIME\t",
    "HEADER\tCLIENT_LIST\t",
    "HEADER,ROUTING_TABLE,",
    "CLIENT_LIST\t",
    "CLIENT_LIST,",
  ],
  ...[
    "ROUTING_TABLE\t",
    "GLOBAL_STATS,",
    "OpenVPN CLIENT LIST\n",
    "ROUTING TABLE\n",
    "GLOBAL STATS\n",
    "OpenVPN STATISTICS\n",
  ],
  ...[
    "Common Name",
    "Real Address",
    "Bytes Received",
    "Bytes Sent",
    "Client ID",
    "Virtual Address",
    "Updated,",
    "UNDEF",
  ],
  ...[
    "pid=",
    "hold=",
    "nclients=1,bytesin=",
    ",bytesout=",
    "common name '",
    "' found, ",
    " client(s) killed",
    "verb=",
  ],
  ...[
    "OpenVPN Version: ",
    "Management Version: ",
    "Management client version set to 5",
    " client(s) updated",
  ],
  ...[
    "OpenVPN Management Interface Version 5 -- type 'help' for more info",
    "MANAGEMENT: CMD '",
    "SESS_ID_",
    "CRV1:",
  ],
  ...[
    "0",
    "1",
    "00",
    "-1",
    "+1",
    "1e3",
    "0x10",
    "4294967295",
    "4294967296",
    "9007199254740993",
    "18446744073709551616",
  ],
  ...[
    "NaN",
    "99999999999999999999999",
    "1700000000",
    "CONNECTED",
    "AUTH_PENDING",
    "SUCCESS",
    "10.8.0.2",
    "fd00::1/64",
  ],
  ...[
    "udp4:192.0.2.1:1194",
    "tcp6-server:[::1]:1",
    "[",
    "]",
    "[::",
    "10.0.0.0/24C",
    "aa:bb:cc:00:11:22@5",
  ],
  ...[
    "\r\n",
    "\r\n",
    "\r\n",
    "\n",
    "\r",
    "\0",
    "\x1b[2J",
    "\x7f",
    "\ufeff",
    "\u2028",
    "ž",
    "\u{1f600}",
    " ",
    "  ",
  ],
  ...[
    "constructor",
    "password=",
    "common_name=",
    "untrusted_ip=",
    "QUFB",
    "QUF=",
    "====",
    "%s%n",
    "\\",
    "\\x20",
  ],
].map((token) => encoder.encode(token));

export function randomBytes(luck: Luck, limit: number): Uint8Array {
  return Uint8Array.from({ length: luck.size(limit) }, () => luck.below(256));
}

function longRun(luck: Luck): Uint8Array {
  return new Uint8Array(luck.pick(LONG_SIZES)).fill(luck.pick([62, 97, 13, 32, 0, 255]));
}

/** Bytes of no meaning, then some of much. */
function soup(luck: Luck): Uint8Array {
  const part = () => {
    if (luck.oneIn(12)) return randomBytes(luck, 40);
    if (luck.oneIn(200)) return longRun(luck);
    return luck.oneIn(15) ? luck.pick(RECORDED_LINES) : luck.pick(TOKENS);
  };
  return concat(luck.times(60, part));
}

/** A part of what an OpenVPN sent, or all of it. */
function recorded(luck: Luck): Uint8Array {
  const bytes = luck.pick(RECORDED);
  if (bytes.length <= MAX_WINDOW_BYTES) return bytes;
  const start = luck.below(bytes.length - MAX_WINDOW_BYTES);
  return bytes.subarray(start, start + MAX_WINDOW_BYTES);
}

type Damage = (bytes: Uint8Array, at: number, luck: Luck) => Uint8Array;

const insert = (bytes: Uint8Array, at: number, more: Uint8Array): Uint8Array =>
  concat([bytes.subarray(0, at), more, bytes.subarray(at)]);

/** The line around `at`. */
function lineAt(bytes: Uint8Array, at: number): [start: number, end: number] {
  const end = bytes.indexOf(LF, at);
  return [at === 0 ? 0 : bytes.lastIndexOf(LF, at - 1) + 1, end < 0 ? bytes.length : end + 1];
}

const DAMAGES: readonly Damage[] = [
  // A bit, or a byte.
  (bytes, at, luck) => {
    const copy = bytes.slice();
    if (at < copy.length) {
      copy[at] = luck.oneIn(2) ? luck.below(256) : copy[at]! ^ 1 << luck.below(8);
    }
    return copy;
  },
  (bytes, at, luck) =>
    insert(bytes, at, Uint8Array.of(luck.pick([10, 13, 0, 62, 44, 58, 39, 255]))),
  (bytes, at, luck) => insert(bytes, at, luck.pick(TOKENS)),
  (bytes, at, luck) => insert(bytes, at, luck.pick(RECORDED_LINES)),
  (bytes, at, luck) => insert(bytes, at, luck.oneIn(4) ? longRun(luck) : randomBytes(luck, 60)),
  // Missing, doubled, and elsewhere.
  (bytes, at, luck) => concat([bytes.subarray(0, at), bytes.subarray(at + luck.size(200))]),
  (bytes, at, luck) => insert(bytes, at, bytes.subarray(at, at + luck.size(400))),
  (bytes, at) => concat([bytes.subarray(0, at)]),
  (bytes, at) => {
    const [start, end] = lineAt(bytes, at);
    return concat([bytes.subarray(0, start), bytes.subarray(end)]);
  },
  (bytes, at) => {
    const [start, end] = lineAt(bytes, at);
    return insert(bytes, start, bytes.subarray(start, end));
  },
  // Of two sessions.
  (bytes, at, luck) => {
    const other = recorded(luck);
    return concat([bytes.subarray(0, at), other.subarray(luck.below(other.length + 1))]);
  },
];

/** What a broken or hostile OpenVPN, or no OpenVPN, could send. */
export function fuzzedWire(luck: Luck): Uint8Array {
  if (luck.oneIn(10)) return randomBytes(luck, 4000);
  if (luck.oneIn(3)) return soup(luck);
  let bytes = recorded(luck);
  for (let left = luck.size(8); left > 0; left--) {
    bytes = luck.pick(DAMAGES)(bytes, luck.below(bytes.length + 1), luck);
  }
  return bytes;
}

/** `bytes` in parts of any size. */
export function fuzzedChunks(luck: Luck, bytes: Uint8Array): Uint8Array[] {
  const largest = luck.pick([1, 3, 17, 300, 5000, 70_000]);
  const chunks: Uint8Array[] = [];
  for (let start = 0; start < bytes.length;) {
    // Bytes one by one are for short texts, or it takes for ever.
    const size = 1 + luck.below(bytes.length > 1500 ? Math.max(largest, 64) : largest);
    chunks.push(bytes.slice(start, start += size));
  }
  return chunks;
}

/** A text for an argument. */
export function fuzzedText(luck: Luck): string {
  const decoder = new TextDecoder("utf-8", { ignoreBOM: true });
  const text = decoder.decode(concat(luck.times(6, () => luck.pick(TOKENS))));
  return luck.oneIn(3) ? text : text.replace(/[^ -~]/g, "");
}
