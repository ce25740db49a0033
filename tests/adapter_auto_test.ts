import { auto } from "@trunkline/sockets/auto";
import { adapterTests } from "./adapter_kinds.ts";

adapterTests("auto", auto);
