/**
 * OpenVPNs for tests.
 *
 * - {@linkcode simulateDaemon} makes one that answers every command as OpenVPN 2.6.14 or 2.7.6 does, texts and faults included, and
 *   whose methods make things happen: clients connect, passwords and signatures are asked for, it restarts, it dies.
 * - {@linkcode startScriptedDaemon} and {@linkcode replayRecording} play back what a real one said, and check what they are told;
 *   {@linkcode recordConn} records that.
 *
 * The simulator does not: connect to anything (states are entered by the test), keep time (there are no intervals of `bytecount`, no pauses of
 * restarts, no timeouts of logins, and a killed client leaves at once), livelock at `verb 9`, abort at `pkcs11-id-count` while held, remember
 * passwords, refuse a fourth manager, know DCO, tap devices or networks behind clients, or print the real text of `help`.
 *
 * @example Authentication, without an OpenVPN
 * ```ts
 * import { dial } from "@trunkline/sockets/ovpn";
 * import { simulateDaemon } from "@trunkline/sockets/ovpn/testing";
 * import { assertEquals } from "@std/assert";
 *
 * const daemon = simulateDaemon({ mode: "server" });
 * const client = await dial(await daemon.listen());
 * const alice = daemon.clientConnects({ commonName: "alice", username: "al", password: "secret" });
 * await client.command("client-auth-nt 0 1");
 * assertEquals(await alice.decision, { kind: "accepted", config: [] });
 * await client.close();
 * await daemon.close();
 * ```
 *
 * @example A recorded session
 * ```ts
 * import { dial } from "@trunkline/sockets/ovpn";
 * import { startScriptedDaemon } from "@trunkline/sockets/ovpn/testing";
 *
 * const daemon = await startScriptedDaemon([
 *   { from: "daemon", at: 0, text: ">INFO:OpenVPN Management Interface Version 5\r\n" },
 *   { from: "manager", at: 1, text: "pid\n" },
 *   { from: "daemon", at: 2, text: "SUCCESS: pid=42\r\n" },
 *   { from: "daemon", at: 1000, end: true },
 * ]);
 * const client = await dial(daemon.addr);
 * console.log(await client.pid()); // 42
 * await client.closed;
 * await daemon.close();
 * ```
 *
 * @module
 */
export type {
  AuthDecision,
  PendingAuth,
  SimulatedClient,
  SimulatedClientOptions,
} from "./testing_client.ts";
export { type RestartSignal, SimulationError, type SimulatorOptions } from "./testing_core.ts";
export type { Mailbox } from "./testing_mailbox.ts";
export type { SimulatorTransportOptions } from "./testing_process.ts";
export type { Wanted } from "./testing_queries.ts";
export {
  formatRecording,
  parseRecording,
  recordConn,
  type RecordedStep,
  type Recording,
  type RecordingFiles,
} from "./testing_recording.ts";
export {
  ReplayError,
  type ReplayOptions,
  replayRecording,
  type ScriptedDaemon,
  type ScriptedDaemonOptions,
  startScriptedDaemon,
} from "./testing_replay.ts";
export { type PasswordQuestion, simulateDaemon, SimulatedDaemon } from "./testing_simulator.ts";
