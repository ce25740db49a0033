/**
 * What a manager measures, in the style of OpenTelemetry's instruments, whose `Meter` fits here as it is.
 *
 * @module
 */

/** What goes with a measurement. */
export type MetricAttributes = Record<string, string>;

/** An instrument that adds. */
export interface MetricInstrument {
  /** Adds `value`, which is negative only for what goes up and down. */
  add(value: number, attributes?: MetricAttributes): void;
}

/** Options of an instrument. */
export interface MetricOptions {
  /** What it counts. */
  readonly description?: string;
  /** In which unit, after UCUM: `By` is bytes, `{session}` a count of sessions. */
  readonly unit?: string;
}

/** Makes instruments; a `Meter` of OpenTelemetry is one. */
export interface Meter {
  /** Makes one that only goes up. */
  createCounter(name: string, options?: MetricOptions): MetricInstrument;
  /** Makes one that goes up and down. */
  createUpDownCounter(name: string, options?: MetricOptions): MetricInstrument;
}

/** The instruments of a manager. */
export interface Instruments {
  /** `cmgr.sessions`: sessions that there are, by `kind`. */
  readonly sessions: MetricInstrument;
  /** `cmgr.sessions.ended`: by `reason`. */
  readonly ended: MetricInstrument;
  /** `cmgr.connections.refused`: by `listener` and `reason`. */
  readonly refused: MetricInstrument;
  /** `cmgr.reconnects`: connections that were opened again. */
  readonly reconnects: MetricInstrument;
  /** `cmgr.io`: bytes, by `direction`. */
  readonly io: MetricInstrument;
  /** `cmgr.messages`: chunks, lines, frames and datagrams, by `direction`. */
  readonly messages: MetricInstrument;
  /** `cmgr.messages.refused`: what was to be written, and a full queue refused. */
  readonly overflow: MetricInstrument;
  /** `cmgr.queued`: bytes that wait to leave. */
  readonly queued: MetricInstrument;
}

/** The `direction` of what came. */
export const RECEIVED: MetricAttributes = { direction: "receive" };
/** The `direction` of what was written. */
export const SENT: MetricAttributes = { direction: "transmit" };

/** Makes them; what they throw goes to `onError`, so that measuring ends no session. */
export function instruments(meter: Meter, onError: (error: unknown) => void): Instruments {
  const guarded = (instrument: MetricInstrument): MetricInstrument => ({
    add(value, attributes) {
      try {
        instrument.add(value, attributes);
      } catch (error) {
        onError(error);
      }
    },
  });
  const counter = (name: string, unit: string, description: string) =>
    guarded(meter.createCounter(name, { unit, description }));
  const upDown = (name: string, unit: string, description: string) =>
    guarded(meter.createUpDownCounter(name, { unit, description }));
  return {
    sessions: upDown("cmgr.sessions", "{session}", "Sessions that there are"),
    ended: counter("cmgr.sessions.ended", "{session}", "Sessions that have ended"),
    refused: counter("cmgr.connections.refused", "{connection}", "Connections that were not taken"),
    reconnects: counter("cmgr.reconnects", "{connection}", "Connections that were opened again"),
    io: counter("cmgr.io", "By", "Bytes that came and went"),
    messages: counter("cmgr.messages", "{message}", "Messages that came and went"),
    overflow: counter("cmgr.messages.refused", "{message}", "Messages that a full queue refused"),
    queued: upDown("cmgr.queued", "By", "Bytes that wait to leave"),
  };
}
