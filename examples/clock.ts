// node examples/clock.ts serve /tmp/clock.sock, and in another terminal, on any runtime,
// node examples/clock.ts ask /tmp/clock.sock
import { defineService, json, serviceClient } from "@trunkline/sockets/uds";
import { dialServer, registerService, Server } from "@trunkline/sockets/uds";
import process from "node:process";

/** What both sides know. */
const Clock = defineService({
  now: { request: json<{ zone: string }>(), response: json<string>() },
  ticks: { kind: "server-stream", request: json<{ everyMs: number }>(), response: json<number>() },
});

async function serve(path: string): Promise<void> {
  const server = new Server(path);
  registerService(server, Clock, {
    now: ({ zone }) => new Date().toLocaleTimeString("en", { timeZone: zone }),
    async *ticks({ everyMs }, { signal }) {
      for (let tick = 1; !signal.aborted; tick++) {
        yield tick;
        await new Promise((resolve) => setTimeout(resolve, everyMs));
      }
    },
  });
  await server.start();
  console.log(`Listening on ${path}`);
  for (const name of ["SIGINT", "SIGTERM"]) process.once(name, () => server.close({ graceMs: 0 }));
}

async function ask(path: string): Promise<void> {
  const client = await dialServer(path);
  const clock = serviceClient(Clock, client);
  console.log(await clock.now({ zone: "Europe/Berlin" }, { timeoutMs: 1000 }));
  for await (const tick of clock.ticks({ everyMs: 100 })) {
    console.log(`tick ${tick}`);
    if (tick === 3) break; // the server's generator ends, too
  }
  await client.close();
}

const [what, path = "/tmp/clock.sock"] = process.argv.slice(2);
await (what === "serve" ? serve(path) : ask(path));
