/** Logs the events of the lines in its argument, alone and gathered. */
import { EventAssembler, parseEvent } from "@trunkline/sockets/ovpn";
import process from "node:process";

const assembler = new EventAssembler();
for (const line of ["CLIENT:CONNECT,0,1", ...JSON.parse(process.argv[2] ?? "[]")]) {
  const event = parseEvent(line);
  console.log(event, { nested: [event] }, `${event}`, JSON.stringify(event));
  console.log("%o %O %s", event, event, event);
  for (const given of assembler.push(event)) console.log(given);
}
console.log(...assembler.end());
