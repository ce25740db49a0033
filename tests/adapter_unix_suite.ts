/** Unix listeners: the socket file from its making to its removal. */
import { assert, assertEquals } from "@std/assert";
import {
  chmodSync,
  existsSync,
  linkSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  renameSync,
  symlinkSync,
  unlinkSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { basename, dirname, relative } from "node:path";
import process from "node:process";
import { test } from "node:test";
import { bindUnix } from "../adapters/_unix_file.ts";
import { ConnectError, type Listener, type Transport } from "../adapters/types.ts";
import { type Capabilities, rejectsWith } from "./adapter_suite.ts";

const modeOf = (path: string) => (lstatSync(path).mode & 0o7777).toString(8);

export function unixSuite(
  name: string,
  transport: Transport,
  newPath: () => string,
  can: Capabilities,
): void {
  const check = (title: string, body: () => Promise<void>) =>
    test(`${name} unix file: ${title}`, { timeout: 30_000 }, body);

  /** Leaves a socket file behind that nobody listens to, as a killed process does. */
  async function stale(path: string): Promise<void> {
    const listener = await transport.listen(path);
    linkSync(path, `${path}.left`);
    await listener.close();
    renameSync(`${path}.left`, path);
  }

  check("mode is 0600, or what `mode` says, and nothing else is left beside it", async () => {
    const path = newPath();
    const before = readdirSync(dirname(path)).length;
    const listener = await transport.listen(path);
    assertEquals(modeOf(path), "600");
    assertEquals(readdirSync(dirname(path)).length, before + 1);
    assertEquals(listener.addr, { path });
    await listener.close();
    assert(!existsSync(path));
    const open = await transport.listen(path, { mode: 0o666 });
    assertEquals(modeOf(path), "666");
    await open.close();
    assertEquals(readdirSync(dirname(path)).length, before);
  });

  check("a stale socket is taken over, a live one never", async () => {
    const path = newPath();
    await stale(path);
    await rejectsWith(transport.connect(path), "refused");
    const listener = await transport.listen(path);
    await rejectsWith(transport.listen(path), "in-use");
    // The attempt above connected to see whether somebody listens.
    (await listener.accept()).abort();
    const [client, server] = await Promise.all([transport.connect(path), listener.accept()]);
    client.abort();
    server.abort();
    await listener.close();
    assert(!existsSync(path));
  });

  check("of many that take over one stale socket, one gets it", async () => {
    const path = newPath();
    await stale(path);
    // A lock that a process left when it died is no obstacle.
    mkdirSync(`${path}.lock`);
    utimesSync(`${path}.lock`, 1, 1);
    const attempts = await Promise.allSettled(
      [1, 2, 3, 4, 5, 6, 7, 8].map(() => transport.listen(path)),
    );
    const won = attempts.flatMap((attempt) =>
      attempt.status === "fulfilled" ? [attempt.value] : []
    );
    assertEquals(won.length, 1);
    for (const attempt of attempts) {
      if (attempt.status === "rejected") assertEquals(attempt.reason.code, "in-use");
    }
    const connecting = transport.connect(path);
    (await connecting).abort();
    await won[0]!.close();
    assertEquals(readdirSync(dirname(path)).filter((file) => file.includes(basename(path))), []);
  });

  check("a file that is no socket is left alone", async () => {
    const path = newPath();
    writeFileSync(path, "precious");
    const error = await rejectsWith(transport.listen(path), "in-use");
    assert(error.message.includes("no socket"), error.message);
    assertEquals(lstatSync(path).size, 8);
  });

  check("close() leaves a socket alone that another listener put there", async () => {
    const path = newPath();
    const first = await transport.listen(path);
    renameSync(path, `${path}.moved`);
    const second = await transport.listen(path);
    await first.close();
    assert(existsSync(path));
    await second.close();
    assert(!existsSync(path));
  });

  check(
    "a closing listener is gone from its path before it stops, so that nobody takes it over",
    async () => {
      const path = newPath();
      for (let i = 0; i < 20; i++) {
        const listener = await transport.listen(path);
        const closing = listener.close();
        const found = await transport.connect(path).then(
          (conn) => conn.abort(),
          (error) => error.code,
        );
        // It would say: a dead socket, free to be removed.
        assert(found !== "refused", found);
        await closing;
      }
    },
  );

  check("a socket that is replaced while it is looked at is left alone", async () => {
    for (const code of ["not-found", "refused"] as const) {
      const path = newPath();
      await stale(path);
      let looks = 0;
      const other = Promise.withResolvers<Listener>();
      const look = async () => {
        // The second look sees the old one, gone or dead; what is there after it is another.
        if (++looks !== 2) return (await transport.connect(path)).abort();
        unlinkSync(path);
        other.resolve(await transport.listen(path));
        throw new ConnectError(code, "looking");
      };
      const bind = (made: string) => transport.listen(made);
      await rejectsWith(bindUnix(path, 0o600, bind, look, (it) => it.close()), "in-use");
      (await transport.connect(path)).abort();
      await (await other.promise).close();
    }
  });

  check("a relative path works, and is removed after the directory was changed", async () => {
    const path = newPath();
    const from = process.cwd();
    // Deno's test runner runs files in one process too, so the way back is certain.
    process.chdir(dirname(path));
    try {
      const listening = transport.listen(`unix:${relative(dirname(path), path)}`);
      process.chdir("/");
      const listener = await listening;
      assert(existsSync(path));
      await listener.close();
      assert(!existsSync(path));
    } finally {
      process.chdir(from);
    }
  });

  check("bad places are refused: missing, too long, NUL inside, open to everybody", async () => {
    await rejectsWith(transport.listen(`${newPath()}/none/x.sock`), "not-found");
    await rejectsWith(transport.connect(newPath()), "not-found");
    // 107 bytes fit, counted in UTF-8; a cut path would be another socket.
    for (
      const path of [`/tmp/${"x".repeat(103)}`, `/tmp/${"é".repeat(52)}`, "/tmp/a\0b", "unix:"]
    ) {
      await rejectsWith(transport.listen(path), "invalid-address");
      await rejectsWith(transport.connect(path), "invalid-address");
    }
    const open = `${newPath()}.d`;
    mkdirSync(open);
    chmodSync(open, 0o777);
    await rejectsWith(transport.listen(`${open}/x.sock`), "permission");
    symlinkSync(open, `${open}.link`);
    await rejectsWith(transport.listen(`${open}.link/x.sock`), "permission");
    chmodSync(open, 0o1777);
    await (await transport.listen(`${open}/x.sock`)).close();
  });

  test(`${name} unix file: in the root of a file system`, {
    skip: !existsSync("/dev/shm"),
    timeout: 30_000,
  }, async () => {
    // A private directory beside the mount point would be in another one.
    const path = `/dev/shm/${basename(dirname(newPath()))}-${name}.sock`;
    await (await transport.listen(path)).close();
    assert(!existsSync(path));
  });

  check("nothing is made outside of the socket's directory", async () => {
    const outer = newPath();
    mkdirSync(`${outer}/inner`, { recursive: true });
    const before = lstatSync(outer, { bigint: true });
    const listener = await transport.listen(`${outer}/inner/x.sock`);
    const after = lstatSync(outer, { bigint: true });
    await listener.close();
    assertEquals([after.mtimeNs, after.nlink], [before.mtimeNs, before.nlink]);
  });

  check("a directory that is too long for the private name is told", async () => {
    const directory = dirname(newPath());
    const inner = `${directory}/${"x".repeat(100 - directory.length - 1)}`;
    mkdirSync(inner);
    const error = await rejectsWith(transport.listen(`${inner}/x`), "invalid-address");
    assert(error.message.includes("private directory"), error.message);
    assertEquals(readdirSync(inner), []);
  });

  check("the longest path works", async () => {
    const directory = dirname(newPath());
    const path = `${directory}/${"x".repeat(107 - directory.length - 1)}`;
    const listener = await transport.listen(path);
    const [client, server] = await Promise.all([transport.connect(path), listener.accept()]);
    client.abort();
    server.abort();
    await listener.close();
  });

  check("peerCredentials() tells the process, where the runtime can", async () => {
    const path = newPath();
    const listener = await transport.listen(path, { credentials: true });
    const [client, server] = await Promise.all([
      transport.connect(path, { credentials: true }),
      listener.accept(),
    ]);
    const expected = can.credentials
      ? { pid: process.pid, uid: process.getuid!(), gid: process.getgid!() }
      : undefined;
    assertEquals(client.peerCredentials(), expected);
    assertEquals(server.peerCredentials(), expected);
    client.abort();
    server.abort();
    await listener.close();
  });
}
