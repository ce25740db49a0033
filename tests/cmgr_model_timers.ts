/** Counts timers that nobody ended. */

/** Runs `body`, and gives the number of timers that were set meanwhile and neither ended nor fired. */
export async function timersLeft(body: () => Promise<void>): Promise<number> {
  const { setTimeout, setInterval, clearTimeout, clearInterval } = globalThis;
  const left = new Set<unknown>();
  const patch = {
    setTimeout: (call: () => void, ms: number) => {
      const timer = setTimeout(() => {
        left.delete(timer);
        call();
      }, ms);
      left.add(timer);
      return timer;
    },
    setInterval: (call: () => void, ms: number) => {
      const timer = setInterval(call, ms);
      left.add(timer);
      return timer;
    },
    clearTimeout: (timer: ReturnType<typeof setTimeout>) => {
      left.delete(timer);
      clearTimeout(timer);
    },
    clearInterval: (timer: ReturnType<typeof setInterval>) => {
      left.delete(timer);
      clearInterval(timer);
    },
  };
  Object.assign(globalThis, patch);
  try {
    await body();
    return left.size;
  } finally {
    Object.assign(globalThis, { setTimeout, setInterval, clearTimeout, clearInterval });
  }
}
