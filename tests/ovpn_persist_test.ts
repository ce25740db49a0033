/** A command that has to be carried out: it is sent again while OpenVPN is late, and over the next connection. */
import { assertEquals } from "@std/assert";
import { test } from "node:test";
import { ManagementError } from "@trunkline/sockets/ovpn";
import { persist } from "../ovpn/_persist.ts";

const soon = (): Promise<void> => new Promise((resolve) => setTimeout(resolve, 0));

/** A command that fails with these, one after the other, and then succeeds. */
function failing(...codes: ("timeout" | "disconnected")[]) {
  let sent = 0;
  const done = Promise.withResolvers<void>();
  const send = (): Promise<void> => {
    const code = codes[sent++];
    if (code !== undefined) return Promise.reject(new ManagementError(code, code));
    done.resolve();
    return Promise.resolve();
  };
  return { send, done: done.promise, sent: () => sent };
}

test("persist() sends a command again after each timeout, and once it has succeeded no more", async () => {
  const command = failing("timeout", "timeout");
  const { signal } = new AbortController();
  const errors: unknown[] = [];
  const again = persist(command.send, { signal, onError: (error) => errors.push(error) });
  await command.done;
  await soon();
  again();
  assertEquals([command.sent(), errors.length], [3, 2]);
});

test("persist() waits for the next connection after another failure", async () => {
  const command = failing("disconnected", "timeout");
  const { signal } = new AbortController();
  const again = persist(command.send, { signal });
  await soon();
  assertEquals(command.sent(), 1);
  again();
  // Under way already.
  again();
  await soon();
  assertEquals(command.sent(), 2);
  // Need not wait for the pause.
  again();
  await command.done;
  assertEquals(command.sent(), 3);
});

test("persist() ends by its signal", async () => {
  const stop = new AbortController();
  const command = failing("timeout");
  const errors: unknown[] = [];
  const again = persist(command.send, {
    signal: stop.signal,
    onError: (error) => errors.push(error),
  });
  stop.abort();
  await soon();
  again();
  assertEquals([command.sent(), errors.length], [1, 0]);
});
