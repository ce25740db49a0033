/**
 * The status report: who is connected, and what was transferred.
 *
 * @module
 */
import { type Count, parseCount, whole } from "./_decimal.ts";
import { ManagementError } from "./errors.ts";
import {
  type ClientColumns,
  clientColumns,
  readClient,
  readRoute,
  type RouteColumns,
  routeColumns,
  type StatusClient,
  type StatusRoute,
  type StatusTime,
} from "./status_row.ts";

export type { StatusAddress, StatusClient, StatusRoute, StatusTime } from "./status_row.ts";

/** What {@linkcode parseStatus} gives. */
export interface Status {
  /** The format of a server's report; `"p2p"` for what a client reports, whichever was asked for. */
  readonly format: 1 | 2 | 3 | "p2p";
  /** Which OpenVPN it is: `OpenVPN 2.6.14 x86_64-pc-linux-gnu ...`; `undefined` in format 1 and p2p. */
  readonly title: string | undefined;
  /** When the report was made. */
  readonly time: StatusTime | undefined;
  /** The clients of a server. */
  readonly clients: readonly StatusClient[];
  /** The routing table of a server. */
  readonly routes: readonly StatusRoute[];
  /** The rest of what a server tells, by the name that it gives: `Max bcast/mcast queue length`, `dco_enabled`. */
  readonly globals: ReadonlyMap<string, string>;
  /** What a client has transferred, by the name that it gives: `TUN/TAP read bytes`, `Auth read bytes`, ... */
  readonly counters: ReadonlyMap<string, Count>;
  /** Lines that could not be read for certain, as they are. */
  readonly unparsed: readonly string[];
}

/** A report that is being read. */
interface Draft {
  readonly format: Status["format"];
  title: string | undefined;
  time: StatusTime | undefined;
  readonly clients: StatusClient[];
  readonly routes: StatusRoute[];
  readonly globals: Map<string, string>;
  readonly counters: Map<string, Count>;
  readonly unparsed: string[];
}

/** How the first line begins. */
const CLIENT_LIST = "OpenVPN CLIENT LIST";
const STATISTICS = "OpenVPN STATISTICS";

/**
 * Reads a status report: the reply to `status`, or a file of `--status`, line by line, with or without its `END`.
 *
 * Ask for format 3. Nothing is escaped in any format, and only TAB, which separates the columns of 3, cannot be part of a name. In
 * 1 and 2 a comma in a name shifts the columns, and in 1 a name begins the line: one that begins with `>` never gets here, since
 * on the wire that line is an event. Rows with a wrong number of columns, or with text for a number, are not guessed at but kept in
 * `unparsed`, and so are tables and rows that no known version has, and what follows `END`. Columns are found by their titles: older
 * daemons have fewer.
 *
 * @example A server's clients
 * ```ts
 * import { parseStatus } from "@trunkline/sockets/ovpn";
 *
 * const { clients, unparsed } = parseStatus([
 *   "TITLE\tOpenVPN 2.6.14",
 *   "TIME\t2026-11-21 00:27:32\t1795220852",
 *   "HEADER\tCLIENT_LIST\tCommon Name\tReal Address\tBytes Received\tBytes Sent\tClient ID",
 *   "CLIENT_LIST\talice\t192.0.2.1:1194\t10\t20\t0",
 * ]);
 * for (const { clientId, commonName, realAddress } of clients) {
 *   console.log(clientId, commonName, realAddress.address); // 0 alice 192.0.2.1
 * }
 * console.log(unparsed.length); // 0
 * ```
 *
 * @throws {ManagementError} `protocol` if the first line is not that of a status report; for nothing else
 */
export function parseStatus(lines: readonly string[]): Status {
  const first = lines.find((line) => line !== "") ?? "";
  const draft = emptyDraft(formatOf(first));
  const rest = lines.slice(
    lines.indexOf(first) + (draft.format === 1 || draft.format === "p2p" ? 1 : 0),
  );
  const end = rest.indexOf("END");
  const body = end < 0 ? rest : rest.slice(0, end);
  if (draft.format === "p2p") readStatistics(body, draft);
  else if (draft.format === 1) readSections(body, draft);
  else readTables(body, draft.format === 2 ? "," : "\t", draft);
  if (end >= 0) keepUnparsed(rest.slice(end + 1), draft);
  return draft;
}

function formatOf(line: string): Status["format"] {
  if (line.startsWith("TITLE\t")) return 3;
  if (line.startsWith("TITLE,")) return 2;
  if (line === CLIENT_LIST) return 1;
  if (line === STATISTICS) return "p2p";
  const text = `status: the first line is not TITLE, ${CLIENT_LIST} or ${STATISTICS}`;
  throw new ManagementError("protocol", text);
}

function emptyDraft(format: Status["format"]): Draft {
  return {
    format,
    title: undefined,
    time: undefined,
    clients: [],
    routes: [],
    globals: new Map(),
    counters: new Map(),
    unparsed: [],
  };
}

function keepUnparsed(lines: readonly string[], { unparsed }: Draft): void {
  for (const line of lines) if (line !== "") unparsed.push(line);
}

/** `Updated,DATE`, which the daemon writes before anything of a client. */
function readUpdated(line: string | undefined, draft: Draft): boolean {
  if (line === undefined || !line.startsWith("Updated,")) return false;
  draft.time = { text: line.slice("Updated,".length), seconds: undefined };
  return true;
}

/** The report of a client: `name,number`. */
function readStatistics(lines: readonly string[], draft: Draft): void {
  const from = readUpdated(lines[0], draft) ? 1 : 0;
  for (const line of lines.slice(from)) {
    const comma = line.lastIndexOf(",");
    const count = parseCount(line.slice(comma + 1));
    const name = line.slice(0, Math.max(comma, 0));
    if (count === undefined || comma < 0 || draft.counters.has(name)) keepUnparsed([line], draft);
    else draft.counters.set(name, count);
  }
}

/** Format 1: sections with a title each; only the first two have a header. */
function readSections(lines: readonly string[], draft: Draft): void {
  let section: "clients" | "routes" | "globals" = "clients";
  let header = true;
  let clients: ClientColumns | undefined;
  let routes: RouteColumns | undefined;
  for (const line of lines.slice(readUpdated(lines[0], draft) ? 1 : 0)) {
    // No row is one of these: rows have commas.
    if (line === "ROUTING TABLE") [section, header] = ["routes", true];
    else if (line === "GLOBAL STATS") section = "globals";
    else if (section === "globals") readGlobal(line, line.lastIndexOf(","), line, draft);
    else if (header) {
      header = false;
      const titles = line.split(",");
      if (section === "clients") clients = clientColumns(titles);
      else routes = routeColumns(titles);
      if ((section === "clients" ? clients : routes) === undefined) keepUnparsed([line], draft);
    } else if (section === "clients") readClientLine(line, ",", clients, line, draft);
    else readRouteLine(line, ",", routes, line, draft);
  }
}

/** Formats 2 and 3: each line tells by its first word to what it belongs. */
function readTables(lines: readonly string[], separator: "," | "\t", draft: Draft): void {
  let clients: ClientColumns | undefined;
  let routes: RouteColumns | undefined;
  for (const line of lines) {
    const at = line.indexOf(separator);
    const rest = line.slice(at + 1);
    switch (line.slice(0, Math.max(at, 0))) {
      case "CLIENT_LIST":
        readClientLine(rest, separator, clients, line, draft);
        break;
      case "ROUTING_TABLE":
        readRouteLine(rest, separator, routes, line, draft);
        break;
      case "GLOBAL_STATS":
        readGlobal(rest, rest.lastIndexOf(separator), line, draft);
        break;
      case "TITLE":
        if (draft.title === undefined) draft.title = rest;
        else keepUnparsed([line], draft);
        break;
      case "TIME":
        if (draft.time === undefined) draft.time = readTime(rest, separator);
        else keepUnparsed([line], draft);
        break;
      case "HEADER": {
        const [table, ...titles] = rest.split(separator);
        const columns = table === "CLIENT_LIST"
          ? clients = clientColumns(titles)
          : table === "ROUTING_TABLE"
          ? routes = routeColumns(titles)
          : undefined;
        if (columns === undefined) keepUnparsed([line], draft);
        break;
      }
      default:
        keepUnparsed([line], draft);
    }
  }
}

function readClientLine(
  row: string,
  separator: string,
  columns: ClientColumns | undefined,
  line: string,
  draft: Draft,
): void {
  // One more than there can be tells as much as all.
  const client = columns && readClient(row.split(separator, columns.length + 1), columns, line);
  if (client === undefined) keepUnparsed([line], draft);
  else draft.clients.push(client);
}

function readRouteLine(
  row: string,
  separator: string,
  columns: RouteColumns | undefined,
  line: string,
  draft: Draft,
): void {
  const route = columns && readRoute(row.split(separator, columns.length + 1), columns, line);
  if (route === undefined) keepUnparsed([line], draft);
  else draft.routes.push(route);
}

function readGlobal(pair: string, cut: number, line: string, draft: Draft): void {
  const name = pair.slice(0, Math.max(cut, 0));
  if (cut < 0 || draft.globals.has(name)) keepUnparsed([line], draft);
  else draft.globals.set(name, pair.slice(cut + 1));
}

/** `DATE,seconds`; the date of some version may have the separator in it. */
function readTime(text: string, separator: string): StatusTime {
  const cut = text.lastIndexOf(separator);
  const seconds = cut < 0 ? undefined : whole(text.slice(cut + 1));
  return { text: seconds === undefined ? text : text.slice(0, cut), seconds };
}
