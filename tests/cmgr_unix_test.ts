/** Unix sockets of a connection manager, and listeners and streams that it is given. */
import { assertEquals } from "@std/assert";
import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import {
  existsSync,
  linkSync,
  lstatSync,
  mkdtempSync,
  renameSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { after } from "node:test";
import { type Conn, ConnectError, connPair, listen, type Listener } from "@trunkline/sockets/auto";
import type { ManagerError, StreamSession } from "@trunkline/sockets/cmgr";
import {
  brief,
  check,
  codeOf,
  take,
  takeUntil,
  text,
  thrown,
  until,
  utf8,
  within,
} from "./cmgr_support.ts";
import { RUNTIME } from "./adapter_kinds.ts";
import { readAll, readExactly } from "./adapter_suite.ts";
import { muxPair, streamPair } from "./mux_pair.ts";

/** Which can tell the descriptors of its sockets. */
const NODE = RUNTIME === "node" ? process.execPath : "node";
const directory = mkdtempSync(join(tmpdir(), "trunkline-"));
after(() => rmSync(directory, { recursive: true, force: true }));
let paths = 0;
const newPath = (): string => join(directory, `${++paths}.sock`);

check("listenUnix() makes a socket file, and close() removes it", async (scene) => {
  const manager = scene.manager();
  const path = newPath();
  assertEquals(await manager.listenUnix(path), "l0");
  assertEquals(manager.address("l0"), { path });
  assertEquals((lstatSync(path).mode & 0o777).toString(8), "600");
  await manager.close("l0");
  assertEquals(existsSync(path), false);
  const options = { mode: 0o666 };
  await manager.listenUnix(path, undefined, options);
  assertEquals((lstatSync(path).mode & 0o777).toString(8), "666");
  await manager.shutdown();
  assertEquals(existsSync(path), false);
});

check("a session over a unix socket is named after its path", async (scene) => {
  const manager = scene.manager();
  const path = newPath();
  await manager.listenUnix(path);
  const session = await manager.connect(path, "me");
  assertEquals([session.kind, session.from], ["unix", path]);
  await session.writeStr("hello");
  const events = await takeUntil(manager.events, "data");
  const served = events.filter(({ id }) => id === "a1");
  assertEquals(brief(served), ["accepted a1", "new a1", "data a1 hello"]);
  assertEquals(served[0]!.info, `connection [a1] accepted from: ${path}`);
  for (const event of served) assertEquals(event.from, path);
  await served[2]!.writeStr("answer");
  const [answer] = (await takeUntil(manager.events, "data")).slice(-1);
  assertEquals(brief([answer!]), ["data me answer"]);
});

check("listen() takes the path of the kind unix in either place", async (scene) => {
  const manager = scene.manager();
  const [one, two] = [newPath(), newPath()];
  await manager.listen("unix", one);
  await manager.listen("unix", "", two);
  assertEquals([manager.address("l0"), manager.address("l1")], [{ path: one }, { path: two }]);
});

check("an abstract name", async (scene) => {
  const manager = scene.manager();
  const name = `trunkline-cmgr-${process.pid}`;
  await manager.listenUnix(`\0${name}`);
  assertEquals(manager.address("l0"), { path: `\0${name}` });
  await manager.connect(`unix:@${name}`, "me");
  await manager.writeStr("me", "hello");
  const events = await takeUntil(manager.events, "data");
  assertEquals(brief(events).at(-1), "data a1 hello");
  assertEquals(manager.stats().listeners[0]!.address, `unix:@${name}`);
}, { skip: process.platform !== "linux" });

check("a stale socket is taken over, a live one and a plain file never", async (scene) => {
  const path = newPath();
  const gone = await listen(path);
  linkSync(path, `${path}.left`);
  await gone.close();
  renameSync(`${path}.left`, path);
  const manager = scene.manager();
  assertEquals(await codeOf(manager.connect(path, "me")), "refused");
  await manager.listenUnix(path);
  assertEquals(await codeOf(manager.listenUnix(path)), "in-use");
  const file = newPath();
  writeFileSync(file, "precious");
  assertEquals(await codeOf(manager.listenUnix(file)), "in-use");
  assertEquals(await codeOf(manager.listenUnix(join(directory, "none", "x.sock"))), "not-found");
  assertEquals(manager.stats().listeners.length, 1);
});

check("serve() takes the connections of a listener that one has, and closes it", async (scene) => {
  for (const address of ["127.0.0.1:0", newPath()]) {
    const listener = await listen(address);
    const manager = scene.manager();
    assertEquals(manager.serve(listener), "l0");
    assertEquals(manager.address("l0"), listener.addr);
    const client = await scene.client(listener.addr);
    await client.write(utf8("hello"));
    assertEquals(brief(await take(manager.events, 3)).at(-1), "data a1 hello");
    await manager.close("l0");
    assertEquals(await codeOf(listener.accept()), "closed");
  }
});

check("serve() takes a listener that another process handed over", async (scene) => {
  const program = (name: string) => new URL(name, import.meta.url).pathname;
  const flags = RUNTIME === "deno" ? ["run", "-A", "--no-check"] : [];
  const child = spawn(NODE, [
    program("./activation_child.ts"),
    "launch",
    JSON.stringify({ sockets: ["tcp"] }),
    process.execPath,
    ...flags,
    program("./cmgr_activated_child.ts"),
  ], { stdio: ["ignore", "pipe", "inherit"] });
  scene.after(() => child.kill());
  const exited = once(child, "exit");
  const [line] = await within(once(child.stdout, "data"), "its address");
  const [id, address] = JSON.parse(line);
  assertEquals(id, "l0");
  const client = await scene.client(address);
  await client.write(utf8("hello"));
  assertEquals(text(await readExactly(client, 5)), "hello");
  await client.close();
  assertEquals((await within(exited, "its end"))[0], 0);
}, { skip: process.platform !== "linux" || spawnSync(NODE, ["--version"]).status !== 0 });

check("serve() takes any Listener: one of streams, say", async (scene) => {
  const [near, far] = muxPair();
  scene.after(() => Promise.all([near.close(), far.close()]));
  const ended = Promise.withResolvers<void>();
  const accepting = new Set<(error: Error) => void>();
  const streams: Listener = {
    addr: { path: "mux" },
    dropped: 0,
    closed: ended.promise,
    accept: () =>
      new Promise((resolve, reject) => {
        accepting.add(reject);
        far.acceptStream().then(resolve, reject).finally(() => accepting.delete(reject));
      }),
    reloadTls: () => {
      throw new ConnectError("unsupported", "streams have no TLS");
    },
    close: () => {
      for (const reject of accepting) reject(new ConnectError("closed", "closed"));
      ended.resolve();
      return ended.promise;
    },
    [Symbol.asyncDispose]: () => streams.close(),
    [Symbol.asyncIterator]: () => {
      throw new Error("not used");
    },
  };
  const manager = scene.manager();
  manager.serve(streams);
  const stream = await near.openStream();
  await stream.write(utf8("through the mux"));
  assertEquals(brief(await take(manager.events, 3)).at(-1), "data a1 through the mux");
  await manager.writeStr("a1", "answer");
  assertEquals(text(await readExactly(stream, 6)), "answer");
  await manager.close("l0");
  assertEquals(thrown(() => manager.address("l0")), "no-such-session");
});

check("a listener that breaks is told once to onError, and ends no session", async (scene) => {
  const errors: Error[] = [];
  const manager = scene.manager({ onError: (error) => errors.push(error) });
  const [conn, peer] = connPair();
  const ended = Promise.withResolvers<void>();
  ended.promise.catch(() => {});
  const accepts: Promise<Conn>[] = [Promise.resolve(conn)];
  const broken = {
    addr: { path: "/none" },
    dropped: 0,
    closed: ended.promise,
    accept: () => accepts.shift() ?? ended.promise,
    close: () => Promise.resolve(),
  };
  manager.serve(broken as unknown as Listener);
  await take(manager.events, 2);
  ended.reject(new ConnectError("other", "it broke"));
  await until(() => errors.length > 0);
  const [{ code, message, cause }] = errors as [ManagerError];
  assertEquals([code, (cause as Error).message], ["listener", "it broke"]);
  assertEquals(message, "listener l0 cannot accept: it broke");
  await peer.write(utf8("alive"));
  assertEquals(brief(await take(manager.events, 1)), ["data a1 alive"]);
  assertEquals(errors.length, 1);
});

check("adopt() makes a session of a connection in memory", async (scene) => {
  const manager = scene.manager();
  const [conn, peer] = connPair();
  const session = manager.adopt(conn, "memory");
  assertEquals([session.kind, session.listener, session.from], ["stream", undefined, "stream"]);
  await peer.write(utf8("hello"));
  await manager.writeStr("memory", "answer");
  assertEquals(text(await readExactly(peer, 6)), "answer");
  await peer.close();
  const events = brief(await takeUntil(manager.events, "disconnected"));
  assertEquals(events, ["new memory", "data memory hello", "disconnected memory eof"]);
});

check("adopt() takes streams of a mux, and any pair of web streams", async (scene) => {
  const manager = scene.manager();
  const [near, far] = muxPair();
  scene.after(() => Promise.all([near.close(), far.close()]));
  const [stream, other] = await streamPair(near, far);
  const echo = new TransformStream<Uint8Array, Uint8Array>();
  manager.adopt(stream, "mux");
  manager.adopt(echo, "echo");
  await manager.writeToAll(utf8("to all"));
  assertEquals(text(await readExactly(other, 6)), "to all");
  await other.write(utf8("answer"));
  const events = brief(await take(manager.events, 4)).sort();
  assertEquals(events, ["data echo to all", "data mux answer", "new echo", "new mux"]);
  await manager.close("mux");
  assertEquals((await readAll(other)).length, 0);
});

check("adopt() of what is locked is refused; the name is free then", (scene) => {
  const manager = scene.manager();
  const echo = new TransformStream<Uint8Array, Uint8Array>();
  const reader = echo.readable.getReader();
  assertEquals(thrown(() => manager.adopt(echo, "x")), "TypeError");
  reader.releaseLock();
  assertEquals(manager.adopt(echo, "x").id, "x");
  assertEquals(manager.sessions().length, 1);
  return Promise.resolve();
});

check("peerCredentials() of a session are those of its connection", async (scene) => {
  const manager = scene.manager({ credentials: true });
  await manager.listenUnix(newPath());
  await manager.connect(manager.address("l0"), "me");
  const session = manager.session("me") as StreamSession;
  const pid = session.peerCredentials()?.pid;
  assertEquals(pid === undefined || pid === process.pid, true);
  await manager.close("me");
  await takeUntil(manager.events, "disconnected", "me");
});
