/**
 * Whether the certificates of a listener can be used at all. Node says nothing of CAs that are none, Deno nothing at all before
 * the first client.
 *
 * @module
 */
import { connectError } from "./_errors.ts";
import { builtin, type NodeCertificate } from "./_node_builtins.ts";
import type { TlsListenOptions } from "./types.ts";

const BEGIN = "-----BEGIN CERTIFICATE-----";

/** @throws {ConnectError} `tls` for what is no PEM, and a key that is not that of the certificate */
export function checkPem(tls: TlsListenOptions, doing: string): void {
  try {
    const { createPrivateKey } = builtin("node:crypto");
    const [leaf] = certificates("cert", tls.cert);
    if (tls.key === undefined) throw new Error("key in PEM is needed");
    if (!leaf!.checkPrivateKey(createPrivateKey(tls.key))) {
      throw new Error("key and cert do not belong together");
    }
    for (const ca of typeof tls.ca === "string" ? [tls.ca] : tls.ca ?? []) certificates("ca", ca);
  } catch (error) {
    throw connectError("tls", doing, error);
  }
}

function certificates(name: string, pem: string | undefined): NodeCertificate[] {
  const { X509Certificate } = builtin("node:crypto");
  const [, ...blocks] = pem?.split(BEGIN) ?? [];
  if (blocks.length === 0) throw new Error(`${name} in PEM is needed`);
  return blocks.map((block) => new X509Certificate(BEGIN + block));
}
