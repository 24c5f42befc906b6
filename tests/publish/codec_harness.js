// Runs the page's codec outside a page: one JSON command a line on standard input, one JSON answer a line.
// Integers are "0x" strings, names of enum values are "=NAME".
"use strict";
const lines = require("readline").createInterface({ input: process.stdin });
const HvCodec = require(process.argv[2]);
let model = null;

const read = (value) => {
  if (typeof value === "string") return value.startsWith("=") ? value.slice(1) : HvCodec.big(value);
  if (Array.isArray(value)) return value.map(read);
  if (value && typeof value === "object") return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, read(item)]));
  return value;
};
const show = (value) => {
  if (typeof value === "bigint") return HvCodec.hex(value);
  if (Array.isArray(value)) return value.map(show);
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, show(item)]));
};
const wire = (given) => given.body !== undefined ? { body: HvCodec.bytesOf(given.body) }
  : { regs: read(given.regs), mem: given.mem.map(([at, text]) => [HvCodec.big(at), HvCodec.bytesOf(text)]) };

function run(command) {
  if (command.op === "expr") {
    const env = read(command.env);
    return { value: show(HvCodec.evaluate(command.tree, (name) => Object.hasOwn(env, name) ? env[name] : undefined)) };
  }
  if (command.op === "model") { model = command.model; return {}; }
  const spec = new HvCodec.Spec(model, { revision: command.revision, profile: command.profile, config: read(command.config || {}) });
  if (command.op === "layout-decode") return { value: show(spec.decodeLayout(command.layout, HvCodec.bytesOf(command.hex))) };
  if (command.op === "layout-encode") return { hex: HvCodec.hexOf(spec.encodeLayout(command.layout, read(command.value))) };
  const codec = spec.message(command.message, command.transport);
  const asked = command.asked ? spec.message(command.asked, command.transport) : codec.request;
  const request = command.request ? asked.decode(wire(command.request)) : null;
  if (command.op === "decode") {
    const value = codec.decode(wire(command.wire), request);
    return { value: show(value), meaning: codec.meaning(value) };
  }
  const out = codec.encode(read(command.value), request);
  return { regs: show(out.regs), mem: out.mem.map(([at, data]) => [HvCodec.hex(at), HvCodec.hexOf(data)]), body: HvCodec.hexOf(out.body) };
}

lines.on("line", (line) => {
  let answer;
  try { answer = run(JSON.parse(line)); } catch (error) {
    if (!(error instanceof HvCodec.HvError)) throw error;
    answer = { error: error.code, path: error.path };
  }
  process.stdout.write(JSON.stringify(answer) + "\n");
});
