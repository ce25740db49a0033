import { deno } from "@trunkline/sockets/deno";
import { adapterTests } from "./adapter_kinds.ts";

adapterTests("deno", deno);
