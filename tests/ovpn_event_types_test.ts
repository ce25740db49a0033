/** Messages that ask, tell of clients, or come of the server: each with its type. */
import { assert, assertEquals } from "@std/assert";
import { MAX_MESSAGE_BYTES, parseEvent } from "@trunkline/sockets/ovpn";
import { test } from "node:test";

/** Fields by name: those that are secret are not among the enumerable ones. */
function check(line: string, expected: Readonly<Record<string, unknown>>): void {
  const event: object = parseEvent(line);
  for (const [name, value] of Object.entries(expected)) {
    const actual = (event as Record<string, unknown>)[name];
    assertEquals(actual instanceof Map ? [...actual] : actual, value, `${name} of ${line}`);
  }
  const known = [...Object.keys(expected), "type", "raw"];
  const others = Object.keys(event).filter((name) => !known.includes(name));
  assertEquals(others, [], line);
}

function checkUnknown(...lines: string[]): void {
  for (const line of lines) {
    const colon = line.indexOf(":");
    const [keyword, body] = [line.slice(0, colon), line.slice(colon + 1)];
    check(line, { type: "unknown", keyword, body });
  }
}

const NO_ENV = { env: [], envAll: [], envFaults: [] };

test("parseEvent() reads CLIENT", () => {
  const client = (kind: string, clientId: string) => ({ type: "CLIENT", kind, clientId });
  check("CLIENT:CONNECT,0,1", { ...client("CONNECT", "0"), keyId: "1", ...NO_ENV });
  check("CLIENT:REAUTH,12,3", { ...client("REAUTH", "12"), keyId: "3", ...NO_ENV });
  check("CLIENT:ESTABLISHED,7", { ...client("ESTABLISHED", "7"), ...NO_ENV });
  check("CLIENT:DISCONNECT,7", { ...client("DISCONNECT", "7"), ...NO_ENV });
  for (
    const [address, primary] of [
      ["10.8.0.2", true],
      ["10.50.0.0/255.255.255.0", false],
      ["fd00:50::/64", false],
      ["aa:bb:cc:dd:ee:ff", true],
    ] as const
  ) {
    const line = `CLIENT:ADDRESS,3,${address},${primary ? 1 : 0}`;
    check(line, { ...client("ADDRESS", "3"), address, primary });
  }
  const response = { ...client("CR_RESPONSE", "0"), keyId: "1", ...NO_ENV };
  check("CLIENT:CR_RESPONSE,0,1,MTIz", { ...response, response: "MTIz" });
  check("CLIENT:CR_RESPONSE,0,1,", { ...response, response: "" });
});

test("parseEvent() takes ids to 64 bits, written in one way", () => {
  const largest = "18446744073709551615";
  check(`CLIENT:ESTABLISHED,${largest}`, {
    kind: "ESTABLISHED",
    clientId: largest,
    ...NO_ENV,
  });
  check("CLIENT:CONNECT,0,4294967295", {
    kind: "CONNECT",
    clientId: "0",
    keyId: "4294967295",
    ...NO_ENV,
  });
  const bad = [
    "18446744073709551616",
    "99999999999999999999",
    "1".repeat(21),
    "",
    "-1",
    "+1",
    "01",
  ];
  for (const id of [...bad, "0x1", "1e3", " 1", "1 ", "a", "١", "00"]) {
    checkUnknown(`CLIENT:CONNECT,${id},1`, `CLIENT:REAUTH,1,${id}`, `CLIENT:DISCONNECT,${id}`);
    checkUnknown(`CLIENT:ADDRESS,${id},10.8.0.2,1`, `CLIENT:CR_RESPONSE,1,${id},YQ==`);
  }
  checkUnknown("CLIENT:CONNECT,0,4294967296");
});

test("parseEvent() gives a CLIENT that does not fit as unknown", () => {
  checkUnknown("CLIENT:", "CLIENT:CONNECT", "CLIENT:CONNECT,1", "CLIENT:CONNECT,1,2,3");
  checkUnknown("CLIENT:ESTABLISHED", "CLIENT:ESTABLISHED,1,2", "CLIENT:connect,1,2");
  checkUnknown("CLIENT:ADDRESS,1,10.8.0.2", "CLIENT:ADDRESS,1,10.8.0.2,2", "CLIENT:ADDRESS,1,,1");
  checkUnknown("CLIENT:ADDRESS,1,a,1,b", "CLIENT:CR_RESPONSE,1,2", "CLIENT:CR_RESPONSE,1,2,a,b");
  checkUnknown("CLIENT:__proto__,1,2", "CLIENT:constructor,1");
});

test("parseEvent() reads UPDOWN and lines of an environment", () => {
  check("UPDOWN:UP", { type: "UPDOWN", kind: "UP", ...NO_ENV });
  check("UPDOWN:DOWN", { type: "UPDOWN", kind: "DOWN", ...NO_ENV });
  checkUnknown("UPDOWN:", "UPDOWN:up", "UPDOWN:UP,1");
  for (const keyword of ["CLIENT", "UPDOWN"]) {
    const line = (name: string, value: string) => ({
      type: `${keyword}_ENV`,
      ...{ name, value, end: false, overlong: false },
    });
    check(`${keyword}:ENV,a=1`, line("a", "1"));
    check(`${keyword}:ENV,a=`, line("a", ""));
    check(`${keyword}:ENV,a=b=c,d:"é"`, line("a", 'b=c,d:"é"'));
    check(`${keyword}:ENV,END=1`, line("END", "1"));
    check(`${keyword}:ENV,__proto__=x`, line("__proto__", "x"));
    check(`${keyword}:ENV,password=x`, line("password", "x"));
    check(`${keyword}:ENV,END`, { ...line("", ""), end: true });
    checkUnknown(`${keyword}:ENV`, `${keyword}:ENV,`, `${keyword}:ENV,=1`, `${keyword}:ENV,a`);
    const long = `${keyword}:ENV,a=`.padEnd(MAX_MESSAGE_BYTES - 1, "x");
    check(long, { ...line("a", long.slice(13)), overlong: true });
    check(long.slice(1), { type: "unknown", keyword: keyword.slice(1), body: long.slice(7) });
    check(long.slice(0, -1), line("a", long.slice(13, -1)));
  }
});

test("parseEvent() reads what PASSWORD needs", () => {
  const need = (name: string, what: string) => ({
    type: "PASSWORD",
    ...{ kind: "need", name, what, staticChallenge: undefined },
  });
  const both = "username/password";
  check("PASSWORD:Need 'Auth' username/password", need("Auth", both));
  check("PASSWORD:Need 'Auth' username", need("Auth", "username"));
  check("PASSWORD:Need 'Private Key' password", need("Private Key", "password"));
  check("PASSWORD:Need 'Bob's token' password", need("Bob's token", "password"));
  check("PASSWORD:Need 'a' password' password", need("a' password", "password"));
  check("PASSWORD:Need '' password", need("", "password"));
  const challenge = (flags: string, text: string, echo: boolean, concat: boolean) =>
    check(`PASSWORD:Need 'Auth' username/password SC:${flags},${text}`, {
      ...need("Auth", both),
      staticChallenge: { text, echo, concat },
    });
  challenge("0", "PIN", false, false);
  challenge("1", "Please enter token PIN, then press: OK", true, false);
  challenge("2", "", false, true);
  challenge("3", "a' password SC:1,'b", true, true);
  challenge("7", "x", true, true);
  checkUnknown("PASSWORD:", "PASSWORD:Need 'Auth'", "PASSWORD:Need Auth password");
  checkUnknown("PASSWORD:Need 'Auth' passwords", "PASSWORD:Need 'Auth' username/password SC:x,y");
  checkUnknown("PASSWORD:Need 'Auth' username/password SC:1", "PASSWORD:need 'Auth' password");
});

test("parseEvent() reads what PASSWORD says of a verification", () => {
  const failed = (name: string, reason?: string, dynamicChallenge?: unknown) => ({
    ...{ type: "PASSWORD", kind: "verification-failed", name, reason, dynamicChallenge },
  });
  check("PASSWORD:Verification Failed: 'Private Key'", failed("Private Key"));
  const reasons = ["bad otp", 'call "help desk" (x42)', "it's ['so'] and ' ['x']", "", "TEMP[x]:a"];
  for (const reason of [...reasons, "CRV1:R,E:a:b", "CRV1:R:a:%:b", "CRV1:R:a:/w==:b"]) {
    check(`PASSWORD:Verification Failed: 'Auth' ['${reason}']`, failed("Auth", reason));
  }
  const challenges: Readonly<Record<string, Readonly<Record<string, unknown>>>> = {
    "CRV1:R,E:Om01u7:Y3Ix:PIN": { echo: true, responseRequired: true, stateId: "Om01u7" },
    "CRV1::Om01u7:Y3Ix:PIN": { echo: false, responseRequired: false, stateId: "Om01u7" },
    "CRV1:E:st/2+x==:Y3Ix:PIN": { echo: true, responseRequired: false, stateId: "st/2+x==" },
    "CRV1:R::Y3Ix:PIN": { echo: false, responseRequired: true, stateId: "" },
  };
  for (const [reason, challenge] of Object.entries(challenges)) {
    const whole = { ...challenge, username: "cr1", text: "PIN" };
    check(`PASSWORD:Verification Failed: 'Auth' ['${reason}']`, failed("Auth", reason, whole));
  }
  const text = "Approve: on your 'phone', ['OK']:";
  const reason = `CRV1:R:s:xb7DqQ==:${text}`;
  check(
    `PASSWORD:Verification Failed: 'Auth' ['${reason}']`,
    failed("Auth", reason, {
      ...{ echo: false, responseRequired: true, stateId: "s", username: "žé", text },
    }),
  );
  check("PASSWORD:Verification Failed: 'a' ['b'", failed("a' ['b"));
  check("PASSWORD:Verification Failed: '' ['']", failed("", ""));
  checkUnknown("PASSWORD:Verification Failed: ", "PASSWORD:Verification Failed: 'Auth' x");
  checkUnknown("PASSWORD:Verification Failed: 'a' [']", "PASSWORD:Verification Failed: 'a' ['b");
  checkUnknown("PASSWORD:Verification Failed: 'Auth' ['x", "PASSWORD:Verification Failed: Auth");
});

test("parseEvent() reads the token of PASSWORD", () => {
  const token = "SESS_ID_AT_x/y+z==:a";
  check(`PASSWORD:Auth-Token:${token}`, { type: "PASSWORD", kind: "auth-token", token });
  checkUnknown("PASSWORD:Auth-Token:", "PASSWORD:Auth-Token", "PASSWORD:auth-token:x");
});

test("parseEvent() reads NEED-OK, NEED-STR and NEED-CERTIFICATE", () => {
  const texts = { name: "pkcs11-id-request", message: "MSG:a, 'b' string MSG:c" };
  const line = (what: string) => `Need '${texts.name}' ${what} MSG:${texts.message}`;
  check(`NEED-OK:${line("confirmation")}`, { type: "NEED-OK", ...texts });
  check(`NEED-STR:${line("string")}`, { type: "NEED-STR", ...texts });
  check(`NEED-STR:${line("input")}`, { type: "NEED-STR", ...texts });
  check("NEED-OK:Need '' confirmation MSG:", { name: "", message: "" });
  checkUnknown("NEED-OK:Need 'a' string MSG:b", "NEED-STR:Need 'a' confirmation MSG:b");
  checkUnknown("NEED-OK:", "NEED-OK:Need 'a' confirmation", "NEED-STR:Need a string MSG:b");
  const hint = 'macosx-keychain:subject:o=OpenVPN-TEST, "quoted"';
  check(`NEED-CERTIFICATE:${hint}`, { type: "NEED-CERTIFICATE", hint });
  check("NEED-CERTIFICATE:", { type: "NEED-CERTIFICATE", hint: "" });
});

test("parseEvent() reads PK_SIGN and RSA_SIGN", () => {
  for (const type of ["PK_SIGN", "RSA_SIGN"]) {
    const sign = (algorithm?: string, ...parameters: string[][]) => ({
      ...{ type, data: "MDEw+/8=", algorithm, parameters },
    });
    const line = `${type}:MDEw+/8=`;
    check(line, sign());
    check(`${line},RSA_PKCS1_PADDING`, sign("RSA_PKCS1_PADDING"));
    check(
      `${line},RSA_PKCS1_PSS_PADDING,hashalg=SHA256,saltlen=digest`,
      sign("RSA_PKCS1_PSS_PADDING", ["hashalg", "SHA256"], ["saltlen", "digest"]),
    );
    check(
      `${line},ECDSA,hashalg=SHA512,data=message,__proto__=`,
      sign("ECDSA", ["hashalg", "SHA512"], ["data", "message"], ["__proto__", ""]),
    );
    checkUnknown(`${type}:`, `${type}:,ECDSA`, `${type}:a b`, `${line}===`, `${line},`);
    checkUnknown(`${line},ECDSA,`, `${line},ECDSA,x`, `${line},ECDSA,=x`);
    checkUnknown(`${line},ECDSA,hashalg=SHA1,hashalg=SHA256`);
  }
});

test("parseEvent() reads PROXY and REMOTE", () => {
  check("PROXY:1,TCP,vpn.example", { index: 1, protocol: "TCP", host: "vpn.example" });
  check("PROXY:2,UDP,fd00::1", { index: 2, protocol: "UDP", host: "fd00::1" });
  checkUnknown("PROXY:", "PROXY:1,TCP", "PROXY:1,TCP,", "PROXY:x,TCP,a", "PROXY:1,SCTP,a");
  const remote = (host: string, port: number, protocol: string) => ({ host, port, protocol });
  check("REMOTE:vpn.example,1194,udp4", remote("vpn.example", 1194, "udp4"));
  check("REMOTE:::1,8443,tcp6-client", remote("::1", 8443, "tcp6-client"));
  check("REMOTE:a,b,65535,udp", remote("a,b", 65535, "udp"));
  checkUnknown("REMOTE:", "REMOTE:a", "REMOTE:a,1", "REMOTE:,1,udp", "REMOTE:a,65536,udp");
  checkUnknown("REMOTE:a,x,udp", "REMOTE:a,1,", "REMOTE:a,999999,udp");
});

test("parseEvent() reads INFOMSG", () => {
  const url = "https://sso.lab.example/auth?state=a:b,c&x=1";
  check(`INFOMSG:WEB_AUTH::${url}`, { type: "INFOMSG", kind: "WEB_AUTH", flags: [], url });
  check(`INFOMSG:WEB_AUTH:hidden,external:${url}`, {
    ...{ kind: "WEB_AUTH", flags: ["hidden", "external"], url },
  });
  for (const proxy of ["http://h:1", "h:1", "[2001:db8::1]:1", "http://user:pa:ss@h:1/", ":", ""]) {
    for (const address of [url, "http://[::1]:8080/a:https://b", "HTTPS://x/"]) {
      check(`INFOMSG:WEB_AUTH:external,proxy=${proxy}:${address}`, {
        ...{ kind: "WEB_AUTH", flags: ["external", `proxy=${proxy}`], url: address },
      });
    }
  }
  check("INFOMSG:WEB_AUTH:a:b:c", { kind: "WEB_AUTH", flags: ["a"], url: "b:c" });
  check(`INFOMSG:OPEN_URL:${url}`, { kind: "OPEN_URL", url });
  const text = 'Enter the code, sent to: +420..42 ("6 digits")';
  check(`INFOMSG:CR_TEXT:R,E:${text}`, { kind: "CR_TEXT", flags: ["R", "E"], text });
  check("INFOMSG:CR_TEXT::", { kind: "CR_TEXT", flags: [], text: "" });
  for (const text of ["", "x", "WEB_AUTH", "WEB_AUTH:x", "WEB_AUTH::", "OPEN_URL:", "CR_TEXT:R"]) {
    check(`INFOMSG:${text}`, { type: "INFOMSG", kind: "other", text });
  }
});

test("parseEvent() reads NOTIFY and PKCS11ID", () => {
  const notify = (severity: string, notification: string, text: string) => ({
    ...{ type: "NOTIFY", severity, notification, text },
  });
  check("NOTIFY:info,remote-exit,EXIT", notify("info", "remote-exit", "EXIT"));
  check(
    "NOTIFY:info,server-pushed-connection-reset,[N]a, b",
    notify("info", "server-pushed-connection-reset", "[N]a, b"),
  );
  check("NOTIFY:info,server-pushed-halt,", notify("info", "server-pushed-halt", ""));
  checkUnknown("NOTIFY:", "NOTIFY:info,remote-exit");
  check("PKCS11ID-COUNT:2", { type: "PKCS11ID-COUNT", count: 2 });
  checkUnknown("PKCS11ID-COUNT:", "PKCS11ID-COUNT:-1", `PKCS11ID-COUNT:${"9".repeat(16)}`);
  const entry = (index: number, id?: string, blob?: string) => ({ index, id, blob });
  const id = "SoftHSM\\x20v2/it's, BLOB:/01";
  check(`PKCS11ID-ENTRY:'0', ID:'${id}', BLOB:'MII+/='`, entry(0, id, "MII+/="));
  check("PKCS11ID-ENTRY:'2'", entry(2));
  checkUnknown("PKCS11ID-ENTRY:", "PKCS11ID-ENTRY:2", "PKCS11ID-ENTRY:'x'", "PKCS11ID-ENTRY:'1', ");
});

test("parseEvent() does not take what OpenVPN may have cut for whole", () => {
  const lines = [
    "PK_SIGN:",
    "PASSWORD:Auth-Token:",
    "PASSWORD:Need 'Auth' username/password SC:1,",
    "CLIENT:CR_RESPONSE,0,1,",
    "NEED-CERTIFICATE:",
    "INFOMSG:OPEN_URL:",
    "NOTIFY:a,b,",
  ];
  for (const line of lines) {
    assert(parseEvent(line.padEnd(MAX_MESSAGE_BYTES - 2, "A")).type !== "unknown", line);
    checkUnknown(line.padEnd(MAX_MESSAGE_BYTES - 1, "A"));
  }
});
