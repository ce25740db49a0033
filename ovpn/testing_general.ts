/**
 * The commands of a simulated OpenVPN that it always answers, and those that look at what it runs.
 *
 * @module
 */
import { type Commands, type Core, type History, leadingInteger } from "./testing_core.ts";

/** The commands of spec 1.3 that neither decide on a client nor answer a query. */
export function generalCommands(core: Core): Commands {
  const success = (text: string) => core.say(`SUCCESS: ${text}`);
  const error = (text: string) => core.say(`ERROR: ${text}`);
  const level = (name: "verb" | "mute", max: number) => ({
    run: ([text]: readonly string[]) => {
      if (text === undefined) return success(`${name}=${core[name]}`);
      const value = leadingInteger(text);
      if (value < 0 || value > max) return error(`${name} level is out of range`);
      core[name] = value;
      success(`${name} level changed`);
    },
  });
  return {
    "auth-retry": {
      run: ([mode]) => {
        if (mode === undefined) return success(`auth-retry=${core.authRetry}`);
        if (["none", "nointeract", "interact"].includes(mode)) {
          core.authRetry = mode;
          success("auth-retry parameter changed");
        } else {
          core.say("--auth-retry method must be 'interact', 'nointeract', or 'none'");
          error("bad auth-retry parameter");
        }
      },
    },
    bytecount: {
      needs: 1,
      run: ([seconds = ""]) => {
        core.byteCountSeconds = Math.max(0, leadingInteger(seconds));
        success("bytecount interval changed");
      },
    },
    echo: { needs: 1, atLeast: true, run: (args) => history(core, core.echo, args) },
    log: { needs: 1, atLeast: true, run: (args) => history(core, core.log, args) },
    state: { run: (args) => history(core, core.state, args.length === 0 ? ["1"] : args) },
    "env-filter": {
      // Without a parameter it is no question: it sets 0.
      run: ([filter = "0"]) => {
        core.envFilter = leadingInteger(filter);
        success(`env_filter_level=${core.envFilter}`);
      },
    },
    "forget-passwords": { run: () => success("Passwords were forgotten") },
    mute: level("mute", 2147483647),
    verb: level("verb", 15),
    pid: { run: () => success(`pid=${core.pid}`) },
    test: {
      needs: 1,
      run: ([count = ""]) => {
        for (let i = 0; i < Math.min(leadingInteger(count), MAX_TEST_LINES); i++) {
          core.say(`[${i}] The purpose of this command is to generate large amounts of output.`);
        }
      },
    },
    version: {
      run: ([client]) => {
        if (client === undefined) {
          core.say(`OpenVPN Version: ${core.title}`);
          core.say(`Management Version: ${core.managementVersion}`);
          core.say("END");
          return;
        }
        core.clientVersion = leadingInteger(client);
        // Only 2.7.1 and later answer, and only from 4 on.
        if (core.is27 && core.clientVersion >= 4) {
          success(`Management client version set to ${core.clientVersion}`);
        }
      },
    },
    "cr-response": clientOnly(core, "cr-repsonse", 1, () => success("command succeeded")),
    "remote-entry-count": clientOnly(core, "remote-entry-count", 0, () => {
      core.say(String(core.remotes.length));
      core.say("END");
    }),
    "remote-entry-get": {
      ...clientOnly(core, "remote-entry-get", 1, ([from = "", to]) => {
        const all = from === "all";
        const first = all ? 0 : leadingInteger(from);
        const end = all ? core.remotes.length : to === undefined ? first + 1 : leadingInteger(to);
        core.remotes.forEach((remote, index) => {
          if (index >= first && index < end) core.say(`${index},${remote},enabled`);
        });
        core.say("END");
      }),
      atLeast: true,
    },
    net: {
      run: () =>
        core.started
          ? error("Sorry, this command is currently only implemented on Windows")
          : core.sayUnsupported("net"),
    },
    "pkcs11-id-count": { run: () => core.say(`>PKCS11ID-COUNT:${core.pkcs11.length}`) },
    "pkcs11-id-get": {
      needs: 1,
      run: ([index = ""]) => {
        const entry = core.pkcs11[leadingInteger(index)];
        const data = entry === undefined ? "" : `, ID:'${entry.id}', BLOB:'${entry.blob}'`;
        core.say(`>PKCS11ID-ENTRY:'${leadingInteger(index)}'${data}`);
      },
    },
  };
}

/** OpenVPN has no limit, and runs into the one of unsent bytes. */
const MAX_TEST_LINES = 200_000;

function clientOnly(
  core: Core,
  name: string,
  needs: number,
  run: (args: readonly string[]) => void,
): Commands[string] {
  return {
    needs,
    run: (args) => core.server || !core.started ? core.sayUnsupported(name) : run(args),
  };
}

/** Each of at most two parameters is answered by itself. */
function history(core: Core, history: History, args: readonly string[]): void {
  const name = history.event.toLowerCase();
  for (const arg of args.slice(0, 2)) {
    const count = arg === "all" ? Infinity : leadingInteger(arg);
    if (arg === "on" || arg === "off") {
      history.on = arg === "on";
      core.say(`SUCCESS: real-time ${name} notification set to ${arg.toUpperCase()}`);
    } else if (count > 0) {
      for (const line of history.lines.slice(-count)) core.say(line);
      core.say("END");
    } else {
      core.say(`ERROR: ${name} parameter must be 'on' or 'off' or some number n or 'all'`);
    }
  }
}
