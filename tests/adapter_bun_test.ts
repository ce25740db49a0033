import { bun } from "@trunkline/sockets/bun";
import { adapterTests } from "./adapter_kinds.ts";

adapterTests("bun", bun);
