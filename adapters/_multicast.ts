/**
 * Multicast, in the forms that node:dgram and Bun's own UDP sockets share: the interface is one of its addresses for IPv4, and
 * `::%name` for IPv6. None of them says so of a name that is no interface's; so they are looked up here.
 *
 * @module
 */
import { connectError, toConnectError } from "./_errors.ts";
import { builtin } from "./_node_builtins.ts";
import { formatAddress, isIP, isIPv6 } from "./address.ts";
import { ConnectError, type InetAddress } from "./types.ts";

/** What both kinds of sockets have. */
export interface MulticastSocket {
  addMembership(group: string, iface?: string): unknown;
  dropMembership(group: string, iface?: string): unknown;
  setMulticastInterface(iface: string): unknown;
}

interface Membership {
  readonly group: string;
  readonly iface: string | undefined;
}

/** IPv4 224.0.0.0/4 or IPv6 ff00::/8. */
const GROUP = /^(?:22[4-9]|23\d)\.|^ff[\da-f]{2}:/i;

/** The groups of one socket. */
export class Multicast {
  readonly #socket: MulticastSocket;
  readonly #at: InetAddress;
  readonly #closed: () => boolean;
  readonly #joined = new Set<string>();

  constructor(socket: MulticastSocket, at: InetAddress, closed: () => boolean) {
    this.#socket = socket;
    this.#at = at;
    this.#closed = closed;
  }

  join(group: string, iface: string | undefined): void {
    const doing = this.#doing("joining", group, iface);
    const to = this.#membership(group, iface, doing);
    const key = `${to.group} ${to.iface}`;
    if (this.#joined.has(key)) return;
    this.#call(() => this.#socket.addMembership(to.group, to.iface), doing, to.group);
    this.#joined.add(key);
  }

  leave(group: string, iface: string | undefined): void {
    const doing = this.#doing("leaving", group, iface);
    const from = this.#membership(group, iface, doing);
    if (!this.#joined.delete(`${from.group} ${from.iface}`)) return;
    this.#call(() => this.#socket.dropMembership(from.group, from.iface), doing, from.group);
  }

  sendBy(iface: string): void {
    const doing = this.#doing("sending multicast", undefined, iface);
    const own = interfaceFor(iface, isIPv6(this.#at.hostname), doing);
    this.#call(() => this.#socket.setMulticastInterface(own), doing);
  }

  #doing(what: string, group: string | undefined, iface: string | undefined): string {
    const where = iface === undefined ? "" : ` by ${iface}`;
    return `${group === undefined ? what : `${what} ${group}`}${where} at UDP ${
      formatAddress(this.#at)
    }`;
  }

  #membership(text: string, iface: string | undefined, doing: string): Membership {
    if (!isIP(String(text)) || !GROUP.test(text)) {
      throw new ConnectError("invalid-address", `${doing}: not a multicast address`);
    }
    const [literal = "", zone] = text.split("%");
    const group = literal.toLowerCase();
    const six = isIPv6(group);
    if (six && !isIPv6(this.#at.hostname)) {
      throw new ConnectError("invalid-address", `${doing}: an IPv6 group at an IPv4 socket`);
    }
    const named = iface ?? zone;
    return { group, iface: named === undefined ? undefined : interfaceFor(named, six, doing) };
  }

  #call(act: () => void, doing: string, group?: string): void {
    if (this.#closed()) throw connectError("closed", doing);
    try {
      act();
    } catch (error) {
      // Deno cannot do it, Node and Bun can.
      const other = group !== undefined && isIPv6(group) !== isIPv6(this.#at.hostname);
      if (other) throw connectError("unsupported", doing, error);
      throw toConnectError(error, doing);
    }
  }
}

/** An interface of this machine that has an address, by its name or by one of its addresses. */
function interfaceFor(text: string, six: boolean, doing: string): string {
  const [literal, zone] = text.split("%");
  for (const [name, addresses = []] of Object.entries(networkInterfaces(doing))) {
    if (zone !== undefined && zone !== name) continue;
    const exact = addresses.find(({ address }) => address === literal);
    if (name !== text && exact === undefined) continue;
    if (six) return `::%${name}`;
    const four = exact?.family === "IPv4" ? exact : addresses.find((it) => it.family === "IPv4");
    if (four !== undefined) return four.address;
  }
  const family = six ? "" : " with an IPv4 address";
  throw new ConnectError("invalid-address", `${doing}: no interface${family} is ${text}`);
}

function networkInterfaces(doing: string) {
  try {
    return builtin("node:os").networkInterfaces();
  } catch (error) {
    throw toConnectError(error, doing);
  }
}
