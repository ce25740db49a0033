/** `provideKey` and `provideCredentials` against a real OpenVPN, which connects with what they gave it. */
import { assert, assertEquals } from "@std/assert";
import { execFileSync } from "node:child_process";
import { X509Certificate } from "node:crypto";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import {
  type AnswerError,
  dial,
  type ManagementClient,
  provideCredentials,
  provideKey,
  type SignEvent,
} from "@trunkline/sockets/ovpn";
import { clientArgs, findProgram, serverArgs, startOpenVpn } from "../examples/openvpn_process.ts";
import { livePlace } from "./ovpn_live_server.ts";

const OPENSSL = findProgram("openssl") ?? "";
const { openvpn: OPENVPN, directory, namespace } = await livePlace();
const skip = namespace === undefined || OPENSSL === "";
const { subtle } = globalThis.crypto;

/** The options of `args` without `names` and the value of each. */
function without(args: readonly string[], names: readonly string[]): string[] {
  return args.filter((arg, index) =>
    !names.includes(arg) && !names.includes(args[index - 1] ?? "")
  );
}

/** Makes a certificate; gives it, its fingerprint, the key as WebCrypto imports it, and where they are. */
function identity(
  name: string,
  newKey: readonly string[],
  protect: readonly string[] = ["-nodes"],
) {
  const [key, certificate] = [
    join(directory.path, `${name}.key`),
    join(directory.path, `${name}.crt`),
  ];
  const files = ["-keyout", key, "-out", certificate, "-days", "9", "-subj", `/CN=${name}`];
  execFileSync(OPENSSL, ["req", "-x509", ...newKey, ...protect, ...files], { stdio: "ignore" });
  const pem = readFileSync(certificate, "utf8");
  const der = readFileSync(key, "utf8").replace(/-----[^-]*-----|\s/g, "");
  return {
    args: ["--cert", certificate, "--key", key],
    certificate: pem,
    fingerprint: new X509Certificate(pem).fingerprint256,
    pkcs8: Uint8Array.from(atob(der), (character) => character.charCodeAt(0)),
  };
}

async function connected(client: ManagementClient, signs: SignEvent[]): Promise<void> {
  for await (const event of client.subscribe()) {
    if (event.type === "PK_SIGN") signs.push(event);
    if (event.type === "STATE" && event.name === "CONNECTED") return;
  }
  throw new Error("the connection ended before OpenVPN was connected");
}

const RSA = ["-newkey", "rsa:2048"];
const EC = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"];
const CASES: readonly {
  readonly name: string;
  readonly newKey: readonly string[];
  readonly imports: readonly (RsaHashedImportParams | EcKeyImportParams | { name: "Ed25519" })[];
  readonly args: readonly string[];
  readonly algorithm: string;
}[] = [
  {
    name: "TLS 1.3 with RSA",
    newKey: RSA,
    imports: ["SHA-256", "SHA-384", "SHA-512"].map((hash) => ({ name: "RSA-PSS", hash })),
    args: [],
    algorithm: "RSA_PKCS1_PSS_PADDING",
  },
  {
    name: "TLS 1.2 with RSA",
    newKey: RSA,
    imports: ["SHA-256", "SHA-384", "SHA-512"].map((hash) => ({ name: "RSA-PSS", hash })),
    args: ["--tls-version-max", "1.2"],
    algorithm: "RSA_PKCS1_PSS_PADDING",
  },
  {
    name: "TLS 1.3 with ECDSA",
    newKey: EC,
    imports: [{ name: "ECDSA", namedCurve: "P-256" }],
    args: [],
    algorithm: "ECDSA",
  },
  {
    name: "TLS 1.2 with ECDSA",
    newKey: EC,
    imports: [{ name: "ECDSA", namedCurve: "P-256" }],
    args: ["--tls-version-max", "1.2"],
    algorithm: "ECDSA",
  },
  {
    name: "TLS 1.3 with Ed25519",
    newKey: ["-newkey", "ed25519"],
    imports: [{ name: "Ed25519" }],
    args: [],
    algorithm: "ED25519",
  },
];

for (const [index, { name, newKey, imports, args, algorithm }] of CASES.entries()) {
  test(`OpenVPN: a key of WebCrypto connects: ${name}`, { skip, timeout: 30_000 }, async () => {
    const own = identity(String(index), newKey);
    const path = join(directory.path, `${index}.sock`);
    const server = startOpenVpn(OPENVPN, [
      ...without(serverArgs(), ["--peer-fingerprint"]),
      ...["--peer-fingerprint", own.fingerprint],
    ], namespace);
    const daemon = startOpenVpn(OPENVPN, [
      ...without(clientArgs(), ["--cert", "--key"]),
      ...["--management-external-key", "pkcs1", "pss", "digest"],
      ...["--management-external-cert", "hint", "--management-hold"],
      ...["--management", path, "unix", ...args],
    ], namespace);
    try {
      await server.logged(/Initialization Sequence Completed/);
      await daemon.logged(/unix domain socket listening/);
      const client = await dial(path);
      const errors: AnswerError[] = [];
      const onError = (error: AnswerError) => void errors.push(error);
      const keys = await Promise.all(
        imports.map((it) => subtle.importKey("pkcs8", own.pkcs8, it, false, ["sign"])),
      );
      provideKey(client, keys, { certificate: own.certificate, onError });
      await client.setStateEvents(true);
      const signs: SignEvent[] = [];
      const ready = connected(client, signs);
      await client.holdRelease();
      await ready.catch((error) => {
        throw new Error(daemon.log(), { cause: error });
      });
      assertEquals(errors, []);
      assert(signs.length > 0);
      for (const sign of signs) assertEquals(sign.algorithm, algorithm);
      await client.close();
    } finally {
      await daemon.stop();
      await server.stop();
    }
  });
}

test("OpenVPN: credentials: a key's password, a static and a dynamic challenge", {
  skip,
  timeout: 30_000,
}, async () => {
  const own = identity("protected", EC, ["-passout", "pass:key secret"]);
  const [path, serverPath] = [join(directory.path, "c.sock"), join(directory.path, "s.sock")];
  const server = startOpenVpn(OPENVPN, [
    ...without(serverArgs(), ["--peer-fingerprint"]),
    ...["--peer-fingerprint", own.fingerprint, "--management-client-auth"],
    ...["--management", serverPath, "unix"],
  ], namespace);
  const daemon = startOpenVpn(OPENVPN, [
    ...without(clientArgs(), ["--cert", "--key"]),
    ...own.args,
    ...["--auth-user-pass", "--management-query-passwords", "--auth-retry", "interact"],
    ...["--static-challenge", "PIN, or: none?", "1", "--management-hold"],
    ...["--management", path, "unix"],
  ], namespace);
  try {
    await server.logged(/Initialization Sequence Completed/);
    await daemon.logged(/unix domain socket listening/);
    const passwords: (string | undefined)[] = [];
    const judge = await dial(serverPath);
    const judging = (async () => {
      for await (const event of judge.subscribe()) {
        if (event.type !== "CLIENT" || event.kind !== "CONNECT") continue;
        passwords.push(event.env.get("password"));
        if (passwords.length === 1) await judge.clientDeny(event, "no", "wrong pin");
        else if (passwords.length === 2) {
          await judge.clientDeny(event, "more", "CRV1:R,E:st/4+=:YWwgbw==:Token: code?");
        } else await judge.clientAuthNt(event);
      }
    })();
    const client = await dial(path);
    const errors: AnswerError[] = [];
    const asked: unknown[] = [];
    provideCredentials(client, {
      privateKey: ({ attempt }) => attempt === 1 ? "wrong" : "key secret",
      auth: ({ attempt, reason, message }) => {
        asked.push([attempt, reason, message]);
        return { username: "al o", password: "pa:ss š", response: `${attempt}` };
      },
      challenge: ({ message, username }) => `${message} ${username}`,
      onError: (error) => void errors.push(error),
    });
    await client.setStateEvents(true);
    const ready = connected(client, []);
    await client.setHold(false);
    await client.holdRelease();
    await ready.catch((error) => {
      throw new Error(daemon.log(), { cause: error });
    });
    assertEquals(errors, []);
    // Bytes that are no ASCII come in base64, as they were typed.
    assertEquals(passwords, [
      "SCRV1:cGE6c3MgxaE=:MQ==",
      "SCRV1:cGE6c3MgxaE=:Mg==",
      "CRV1::st/4+=::Token: code? al o",
    ]);
    // The key is read after that, and the restart with the right password for it asks again.
    const first = [1, undefined, "PIN, or: none?"];
    assertEquals(asked, [first, first, [2, "wrong pin", "PIN, or: none?"]]);
    await client.close();
    await judge.close();
    await judging;
  } finally {
    await daemon.stop();
    await server.stop();
  }
});
