import { node } from "@trunkline/sockets/node";
import { adapterTests } from "./adapter_kinds.ts";

adapterTests("node", node);
