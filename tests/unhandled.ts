/** Watches for promises that reject with nobody to hear of it, in the way of each runtime. */
import process from "node:process";
import { sleep } from "./adapter_suite.ts";

/** Runs `body` and gives back the reasons of all rejections that nobody handled meanwhile. */
export async function unhandledDuring(body: () => Promise<void>): Promise<unknown[]> {
  const reasons: unknown[] = [];
  const onEvent = (event: Event) => {
    event.preventDefault();
    reasons.push((event as Event & { readonly reason: unknown }).reason);
  };
  const onProcess = (reason: unknown) => void reasons.push(reason);
  const deno = "Deno" in globalThis;
  if (deno) globalThis.addEventListener("unhandledrejection", onEvent);
  else process.on("unhandledRejection", onProcess);
  try {
    await body();
    // They are told after the microtasks of the turn in which they happened.
    await sleep(20);
  } finally {
    if (deno) globalThis.removeEventListener("unhandledrejection", onEvent);
    else process.off("unhandledRejection", onProcess);
  }
  return reasons;
}
