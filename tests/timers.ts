/** What is still to fire when all should be over. */

/** Counts the timers that are set and have neither fired nor been taken back. */
export async function timersAfter(body: () => Promise<void>): Promise<number> {
  const { setTimeout: set, clearTimeout: clear } = globalThis;
  const live = new Set<unknown>();
  const counted = (act: () => void, ms?: number) => {
    const timer = set(() => {
      live.delete(timer);
      act();
    }, ms);
    live.add(timer);
    return timer;
  };
  globalThis.setTimeout = counted as typeof set;
  globalThis.clearTimeout = (timer) => {
    live.delete(timer);
    clear(timer);
  };
  try {
    await body();
    return live.size;
  } finally {
    Object.assign(globalThis, { setTimeout: set, clearTimeout: clear });
  }
}
