/* Encodes and decodes the messages of one ABI from its specification as JSON. No page, no network: values in, values out.
 *
 * Integers are BigInt. A word or element is an object of its fields, a list an array. What cannot be done throws a
 * HvError with the same codes as the Python codecs: truncated, oversized, value-too-large, unknown-field, missing-field,
 * wrong-type, const-mismatch, bad-hex; and those of expressions. */
"use strict";
const HvCodec = (() => {
  const MAX_SHIFT = 4096n, MAX_LIST = 65536, MAX_BYTES = 1n << 20n, MAX_BITS = 65536;

  class HvError extends Error {
    constructor(code, reason, path = "") {
      super(path ? path + ": " + reason : reason);
      this.code = code; this.reason = reason; this.path = path;
    }
  }
  const fail = (code, reason, path) => { throw new HvError(code, reason, path); };

  // -- numbers --------------------------------------------------------------------------------------------------

  const big = (text) => text.startsWith("-") ? -BigInt(text.slice(1)) : BigInt(text);
  const mask = (bits) => (1n << BigInt(bits)) - 1n;
  const hex = (value) => value < 0n ? "-0x" + (-value).toString(16) : "0x" + value.toString(16);
  const registerBits = (name) => name.startsWith("xmm") ? 128 : 64;
  const floorDiv = (a, b) => { const q = a / b; return (a % b !== 0n && (a < 0n) !== (b < 0n)) ? q - 1n : q; };

  function toBytes(value, size, endian) {
    const out = new Uint8Array(size);
    for (let n = 0; n < size; n++) { out[endian === "little" ? n : size - 1 - n] = Number(value & 0xffn); value >>= 8n; }
    return out;
  }
  function fromBytes(bytes, endian) {
    let text = "";
    for (let n = 0; n < bytes.length; n++) {
      text += bytes[endian === "little" ? bytes.length - 1 - n : n].toString(16).padStart(2, "0");
    }
    return text ? BigInt("0x" + text) : 0n;
  }
  function bytesOf(text) {
    const plain = text.replace(/\*(\d+)\*/g, (_, count) => "00".repeat(Number(count)));
    if (plain.length % 2 || /[^0-9a-fA-F]/.test(plain)) fail("bad-hex", "an even number of hex digits is needed");
    const out = new Uint8Array(plain.length / 2);
    for (let n = 0; n < out.length; n++) out[n] = parseInt(plain.substr(2 * n, 2), 16);
    return out;
  }
  const hexOf = (bytes) => Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");

  // -- expressions ----------------------------------------------------------------------------------------------

  const isObject = (value) => value !== null && typeof value === "object" && !Array.isArray(value);
  function integer(value) {
    if (typeof value === "bigint") return value;
    return fail("expr-wrong-type", "a number is needed");
  }
  const list = (value) => Array.isArray(value) ? value : fail("expr-wrong-type", "a list is needed");
  const truth = (flag) => flag ? 1n : 0n;
  const narrow = (value) => value > 1n << BigInt(MAX_BITS) || -value > 1n << BigInt(MAX_BITS)
    ? fail("expr-too-large", "is wider than " + MAX_BITS + " bits") : value;
  const shift = (count) => count < 0n || count > MAX_SHIFT ? fail("expr-shift", "shift by " + count) : count;
  const OPERATORS = {
    "+": (a, b) => a + b, "-": (a, b) => a - b, "*": (a, b) => narrow(a * b), "&": (a, b) => a & b, "|": (a, b) => a | b,
    "//": (a, b) => b ? floorDiv(a, b) : fail("expr-division-by-zero", "division by zero"),
    "%": (a, b) => b ? a - b * floorDiv(a, b) : fail("expr-division-by-zero", "division by zero"),
    "<<": (a, b) => narrow(a << shift(b)), ">>": (a, b) => a >> shift(b),
    "==": (a, b) => truth(a === b), "!=": (a, b) => truth(a !== b), "<": (a, b) => truth(a < b), "<=": (a, b) => truth(a <= b),
    ">": (a, b) => truth(a > b), ">=": (a, b) => truth(a >= b),
  };

  /* `env(name)` gives a value or undefined. */
  function evaluate(tree, env) {
    switch (tree[0]) {
      case "i": return big(tree[1]);
      case "n": {
        const found = env(tree[1]);
        return found === undefined ? fail("expr-unknown-name", "unknown name " + tree[1]) : found;
      }
      case ".": {
        const base = evaluate(tree[1], env);
        if (base instanceof Fields) return base.has(tree[2]) ? base.get(tree[2]) : fail("expr-unknown-field", "no field " + tree[2]);
        if (!isObject(base)) fail("expr-wrong-type", "has no fields");
        return Object.hasOwn(base, tree[2]) ? base[tree[2]] : fail("expr-unknown-field", "no field " + tree[2]);
      }
      case "[]": {
        const items = list(evaluate(tree[1], env)), index = integer(evaluate(tree[2], env));
        return index >= 0n && index < BigInt(items.length) ? items[Number(index)] : fail("expr-index", "index " + index);
      }
      case "l": return tree.slice(1).map((item) => evaluate(item, env));
      case "neg": return -integer(evaluate(tree[1], env));
      case "not": return truth(!integer(evaluate(tree[1], env)));
      case "and": return truth(integer(evaluate(tree[1], env)) && integer(evaluate(tree[2], env)));
      case "or": return truth(integer(evaluate(tree[1], env)) || integer(evaluate(tree[2], env)));
      case "in": {
        const item = integer(evaluate(tree[1], env));
        return truth(walk(evaluate(tree[2], env)).some((other) => integer(other) === item));
      }
      case "call": return call(tree[1], tree.slice(2), env);
      case "for": {
        const items = walk(evaluate(tree[4], env));
        const each = (item) => integer(evaluate(tree[2], (name) => name === tree[3] ? item : env(name)));
        if (tree[1] === "all") return truth(items.every((item) => each(item)));
        if (tree[1] === "any") return truth(items.some((item) => each(item)));
        return items.reduce((sum, item) => sum + each(item), 0n);
      }
      default: return OPERATORS[tree[0]](integer(evaluate(tree[1], env)), integer(evaluate(tree[2], env)));
    }
  }
  const walk = (value) => list(value).length > MAX_LIST ? fail("expr-too-large", "is too long a list") : value;
  function call(name, args, env) {
    if (name === "len") return BigInt(list(evaluate(args[0], env)).length);
    const items = args.length > 1 ? args.map((item) => integer(evaluate(item, env))) : walk(evaluate(args[0], env)).map(integer);
    switch (name) {
      case "sum": return items.reduce((sum, item) => sum + item, 0n);
      case "all": return truth(items.every((item) => item));
      case "any": return truth(items.some((item) => item));
      default:
        if (!items.length) fail("expr-empty-list", "min and max need an element");
        return items.reduce((best, item) => (name === "min" ? item < best : item > best) ? item : best);
    }
  }

  /* The fields of a message, each worked out when it is first asked for. */
  class Fields {
    constructor(names, fetch) { this.names = new Set(names); this.fetch = fetch; this.known = new Map(); this.busy = new Set(); }
    has(name) { return this.names.has(name); }
    get(name) {
      if (!this.known.has(name)) {
        if (this.busy.has(name)) fail("missing-field", "depends on itself: a count and its list are both left out", name);
        this.busy.add(name);
        try { this.known.set(name, this.fetch(name)); } finally { this.busy.delete(name); }
      }
      return this.known.get(name);
    }
    put(name, value) { this.known.set(name, value); }
  }
  const fieldsOf = (value) => value instanceof Fields ? value : new Fields(Object.keys(value), (name) => value[name]);

  // -- the specification ----------------------------------------------------------------------------------------

  class Spec {
    /* `model` is the JSON; `given` has revision, profile and config, each optional. */
    constructor(model, given = {}) {
      this.model = model;
      this.revision = given.revision || model.revision;
      const profile = model.profiles[given.profile || "spec"];
      this.policies = profile.policies;
      this.config = {};
      for (const [name, key] of Object.entries(model.config)) this.config[name] = big(key.default);
      for (const [name, value] of Object.entries(profile.config)) this.config[name] = big(value);
      for (const [name, value] of Object.entries(given.config || {})) this.config[name] = value;
      const renamed = (model.renamed || {})[this.revision] || { names: {}, enums: {} };
      this.enums = renamed.enums;
      this.names = {};
      for (const [name, value] of Object.entries({ ...model.names, ...renamed.names })) {
        this.names[name] = typeof value === "string" ? big(value)
          : Object.fromEntries(Object.entries(value).map(([key, part]) => [key, big(part)]));
      }
    }
    /* The values of an enum in this revision. */
    enumValues(name) { return this.enums[name] || this.model.enums[name].values; }
    holds(item) {
      return (!item.revisions || item.revisions.includes(this.revision))
        && Object.entries(item.policy || {}).every(([name, value]) => this.policies[name] === value);
    }
    transports(message) {
      return Object.entries(this.model.transports)
        .filter(([, item]) => this.holds(item) && item.messages[message] && this.holds(this.model.messages[message])).map(([name]) => name);
    }
    calls() { return this.model.calls.filter((item) => this.holds(item)); }
    message(name, transport) { return new Message(this, name, transport); }

    // -- layouts: words and structures -------------------------------------------------------------------------

    layout(name) { return this.model.layouts[name]; }
    shiftOf(layout, field) {
      const first = layout.endian === "little" ? field.at : layout.size - field.at - field.size;
      return BigInt(first * 8 + field.lo);
    }
    open(layout, word) {
      const out = {};
      for (const field of layout.fields) {
        let value = (word >> this.shiftOf(layout, field)) & mask(field.bits);
        if (field.signed && value >> BigInt(field.bits - 1)) value -= 1n << BigInt(field.bits);
        out[field.name] = field.word ? this.open(this.layout(field.word), value) : value;
      }
      return out;
    }
    close(layout, given, path) {
      if (typeof given === "bigint") {
        if (given < 0n || given >> BigInt(layout.size * 8)) fail("value-too-large", "does not fit " + layout.size * 8 + " bits", path);
        return given;
      }
      if (!isObject(given)) fail("wrong-type", "is a number or names its fields", path);
      for (const name of Object.keys(given)) {
        if (!layout.fields.some((field) => field.name === name)) fail("unknown-field", "there is no field " + name, path);
      }
      let word = 0n;
      for (const field of layout.fields) {
        const where = path ? path + "." + field.name : field.name, part = given[field.name];
        let value;
        if (part === undefined || part === null) value = field.value ? big(field.value) : 0n;
        else if (field.word) value = this.close(this.layout(field.word), part, where);
        else value = this.numberOf(field, part, where);
        const low = field.signed ? -(1n << BigInt(field.bits - 1)) : 0n, high = 1n << BigInt(field.signed ? field.bits - 1 : field.bits);
        if (value < low || value >= high) fail("value-too-large", "does not fit " + field.bits + " bits", where);
        word |= (value & mask(field.bits)) << this.shiftOf(layout, field);
      }
      return word;
    }
    numberOf(field, given, path) {
      if (typeof given === "bigint") return given;
      const names = field.enum ? this.enumValues(field.enum) : {};
      if (typeof given === "string" && Object.hasOwn(names, given)) return big(names[given]);
      return fail("wrong-type", field.enum ? "is neither a number nor one of " + Object.keys(names).join(", ") : "is not a number", path);
    }
    decodeLayout(name, bytes) {
      const layout = this.layout(name);
      if (bytes.length !== layout.size) fail(bytes.length < layout.size ? "truncated" : "oversized", "has " + layout.size + " bytes");
      return this.open(layout, fromBytes(bytes, layout.endian));
    }
    encodeLayout(name, value) {
      const layout = this.layout(name);
      return toBytes(this.close(layout, value, ""), layout.size, layout.endian);
    }
  }

  // -- one message on one transport -----------------------------------------------------------------------------

  class Message {
    constructor(spec, name, transport) {
      this.spec = spec; this.name = name; this.transport = transport;
      const carried = spec.model.transports[transport];
      this.message = spec.model.messages[name];
      this.placement = carried.messages[name];
      this.fields = this.message.fields.filter((field) => spec.holds(field));
      this.byName = new Map(this.fields.map((field) => [field.name, field]));
      const caller = spec.calls().find((item) => item.response === name && item.request !== name && carried.messages[item.request]);
      this.request = caller ? new Message(spec, caller.request, transport) : null;
      this.call = spec.calls().find((item) => item.request === name) || null;
      const own = Object.entries(this.placement.blocks).filter(([, block]) => spec.holds(block));
      this.blocks = { ...(this.request ? this.request.blocks : {}), ...Object.fromEntries(own) };
      this.static = { ...spec.names, ...spec.config };
      for (const [key, value] of Object.entries(carried.limits)) this.static[key] = big(value);
    }

    placeOf(name) { return (this.placement.place[name] || []).find((place) => this.spec.holds(place)) || null; }
    get registers() {
      const found = new Set(Object.keys(this.placement.fixed));
      for (const field of this.fields) {
        const place = this.placeOf(field.name);
        if (!place) continue;
        if (place.register) found.add(place.register);
        else if (place.high) { found.add(place.high); found.add(place.low); }
        else for (const name of this.blocks[place.block].registers) found.add(name);
      }
      return [...found];
    }
    /* The block whose bytes are the message, or null where its registers are. */
    get body() {
      if (this.message.body && this.blocks[this.message.body]) return this.message.body;
      const used = new Set();
      for (const places of Object.values(this.placement.place)) {
        const place = places.find((item) => this.spec.holds(item));
        if (place && place.block) used.add(place.block);
      }
      return used.size === 1 && !this.registers.length ? [...used][0] : null;
    }
    scope(own, sent) {
      return (name) => {
        if (sent && name === "request") return sent;
        if (sent && name === "response") return own;
        if (own.has(name)) return own.get(name);
        if (name === "request") return own;
        if (sent && sent.has(name)) return sent.get(name);
        return Object.hasOwn(this.static, name) ? this.static[name] : undefined;
      };
    }
    int(tree, scope) { return integer(evaluate(tree, scope)); }

    // -- reading ------------------------------------------------------------------------------------------------

    /* `wire` is {regs: {name: BigInt}, mem: [[BigInt, Uint8Array]]}, or {body: Uint8Array}. */
    decode(wire, request = null) {
      const sent = request ? fieldsOf(request) : null;
      let source;
      if (wire.body) {
        if (this.body === null && !this.registers.length) fail("no-body", "has no bytes of its own");
        let base = 0n;
        if (this.body !== null) base = this.address(this.blocks[this.body], this.reader({ register: () => null, read: () => null }, sent).scope);
        source = this.bodySource(wire.body, base);
      } else {
        for (const [register, tree] of Object.entries(this.placement.fixed)) {
          const expected = this.int(tree, (name) => this.static[name]);
          if (register in wire.regs && wire.regs[register] !== expected) fail("const-mismatch", "selects another call: " + hex(expected), register);
        }
        source = this.wireSource(wire);
      }
      const { fields, scope } = this.reader(source, sent);
      const value = {};
      for (const field of this.fields) value[field.name] = fields.get(field.name);
      for (const field of this.fields) {
        if (!field.const || !this.placeOf(field.name)) continue;
        const expected = this.int(field.const, scope);
        if (value[field.name] !== expected) fail("const-mismatch", "is not this message: it has " + hex(expected), field.name);
      }
      for (const [path, tree] of Object.entries(this.placement.parts)) {
        const [name, part] = path.split("."), expected = this.int(tree, scope);
        if (value[name][part] !== expected) fail("const-mismatch", "is not this message, or not on this transport: it has " + hex(expected), path);
      }
      if (wire.body) {
        const own = fieldsOf(value);
        const size = this.body === null ? this.registers.reduce((sum, name) => sum + registerBits(name) / 8, 0)
          : Number(this.int(this.blocks[this.body].size, this.scope(own, sent)));
        if (wire.body.length > size) fail("oversized", "there are bytes behind the message");
      }
      return value;
    }
    reader(source, sent) {
      let scope;
      const fields = new Fields(this.byName.keys(), (name) => this.fetch(this.byName.get(name), scope, source));
      scope = this.scope(fields, sent);
      return { fields, scope };
    }
    wireSource(wire) {
      return {
        register: (name) => {
          const value = name in wire.regs ? wire.regs[name] : 0n;
          return value < 0n || value >> BigInt(registerBits(name)) ? fail("value-too-large", "does not fit " + registerBits(name) + " bits", name) : value;
        },
        read: (block, address, size) => {
          const out = new Uint8Array(size);
          for (let at = 0; at < size;) {
            const here = address + BigInt(at);
            const piece = wire.mem.find(([start, data]) => start <= here && here < start + BigInt(data.length));
            if (!piece) fail("truncated", "no byte was given for address " + hex(here) + " of block " + block);
            const from = Number(here - piece[0]), count = Math.min(piece[1].length - from, size - at);
            out.set(piece[1].subarray(from, from + count), at);
            at += count;
          }
          return out;
        },
      };
    }
    bodySource(body, base) {
      const cut = (at, size, path) => at >= 0 && at + size <= body.length ? body.subarray(at, at + size)
        : fail("truncated", "the bytes end too early", path);
      const registers = this.registers;
      return {
        register: (name) => {
          if (this.body !== null || !registers.includes(name)) return null;
          const at = registers.slice(0, registers.indexOf(name)).reduce((sum, other) => sum + registerBits(other) / 8, 0);
          return fromBytes(cut(at, registerBits(name) / 8, name), "little");
        },
        read: (block, address, size) => block === this.body ? cut(Number(address - base), size, block) : null,
      };
    }
    address(block, scope) { return block.at ? this.int(block.at, scope) : 0n; }
    fetch(field, scope, source) {
      const place = this.placeOf(field.name);
      if (!place) return this.default(field, scope);
      if (field.list) return this.fetchList(field, place, scope, source);
      let value = this.fetchNumber(field, place, scope, source);
      if (value === null) return this.default(field, scope);
      value &= mask(field.bits);
      if (field.signed && value >> BigInt(field.bits - 1)) value -= 1n << BigInt(field.bits);
      return field.word ? this.spec.open(this.spec.layout(field.word), value) : value;
    }
    /* What an encoder takes for a field that it is not given: some fields have a default of their own in each revision. */
    usual(field) {
      const choice = (field.defaults || []).find((item) => this.spec.holds(item));
      return field.default || (choice && choice.is);
    }
    default(field, scope) {
      const tree = field.const || this.usual(field);
      if (!tree && field.list) return [];
      const value = tree ? this.int(tree, scope) : 0n;
      return field.word ? this.spec.open(this.spec.layout(field.word), value) : value;
    }
    fetchNumber(field, place, scope, source) {
      if (place.register) {
        let value = source.register(place.register);
        if (value === null) return null;
        const width = place.hi === undefined ? field.bits : place.hi - place.lo + 1;
        value = (value >> BigInt(place.lo)) & mask(width);
        // A signed field read from fewer bits: the sign is the top bit that was there.
        if (field.signed && width < field.bits && value >> BigInt(width - 1)) value -= 1n << BigInt(width);
        return value;
      }
      if (place.high) {
        const high = source.register(place.high), low = source.register(place.low);
        return high === null || low === null ? null : (high & mask(32)) << 32n | low & mask(32);
      }
      const { offset, size, lo, bits } = this.span(field, place, scope);
      const raw = this.read(place.block, offset, size, scope, source, field.name);
      return raw === null ? null : fromBytes(raw, this.blocks[place.block].endian) >> BigInt(lo) & mask(bits);
    }
    span(field, place, scope) {
      if (place.field) {
        const inner = this.spec.layout(this.blocks[place.block].layout).fields.find((item) => item.name === place.field);
        return { offset: BigInt(inner.at), size: inner.size, lo: inner.lo, bits: inner.bits };
      }
      const bits = place.hi === undefined ? field.bits : place.hi - place.lo + 1;
      const size = place.size === undefined ? Math.floor((place.lo + bits + 7) / 8) : place.size;
      return { offset: this.int(place.at, scope), size, lo: place.lo, bits };
    }
    read(name, offset, size, scope, source, path) {
      const block = this.blocks[name];
      if (!block.registers.length) return source.read(name, this.address(block, scope) + offset, size);
      const data = [];
      for (const register of block.registers) {
        const value = source.register(register);
        if (value === null) return null;
        data.push(...toBytes(value, registerBits(register) / 8, "little"));
        if (BigInt(data.length) >= offset + BigInt(size)) return Uint8Array.from(data.slice(Number(offset), Number(offset) + size));
      }
      return fail("truncated", "the registers hold fewer bytes", path);
    }
    fetchList(field, place, scope, source) {
      if (!place.block || !field.count) fail("wrong-type", "a list lies in a block", field.name);
      const count = this.int(field.count, scope), size = field.bits / 8;
      const stride = place.stride ? this.int(place.stride, scope) : BigInt(size);
      if (count <= 0n) return [];
      this.checkList(field, count, stride, size);
      const offset = this.int(place.at, scope), step = Number(stride);
      const raw = this.read(place.block, offset, (Number(count) - 1) * step + size, scope, source, field.name);
      if (raw === null) return [];
      const layout = field.items ? this.spec.layout(field.items) : null, endian = layout ? layout.endian : this.blocks[place.block].endian;
      const out = [];
      for (let n = 0; n < Number(count); n++) {
        let word = fromBytes(raw.subarray(n * step, n * step + size), endian);
        if (!layout && field.signed && word >> BigInt(field.bits - 1)) word -= 1n << BigInt(field.bits);
        out.push(layout ? this.spec.open(layout, word) : word);
      }
      return out;
    }
    checkList(field, count, stride, size) {
      if (stride < BigInt(size) || count * stride > MAX_BYTES) {
        fail("oversized", stride >= BigInt(size) ? "the list is longer than any message may be" : "the elements overlap", field.name);
      }
    }

    // -- writing ------------------------------------------------------------------------------------------------

    /* A full value: what is given, and constants and defaults for the rest. */
    complete(given, request = null) {
      for (const name of Object.keys(given)) if (!this.byName.has(name)) fail("unknown-field", "there is no field " + name);
      const sent = request ? fieldsOf(request) : null;
      let scope;
      const own = new Fields(this.byName.keys(), (name) => {
        const field = this.byName.get(name);
        if (Object.hasOwn(given, name)) return this.filled(name, field, given[name]);
        if (field.const || this.usual(field) || field.reserved) return this.default(field, scope);
        return field.list ? [] : fail("missing-field", "is needed: " + field.doc, name);
      });
      scope = this.scope(own, sent);
      const whole = {};
      for (const field of this.fields) {
        let item = own.get(field.name);
        if (!field.list) {
          const value = this.number(field, item);
          item = field.word ? this.spec.open(this.spec.layout(field.word), value) : value;
          own.put(field.name, item);
        } else if (!Array.isArray(item)) fail("wrong-type", "is a list", field.name);
        whole[field.name] = item;
      }
      return whole;
    }
    filled(name, field, given) {
      if (!field.items || !Array.isArray(given)) return given;
      const layout = this.spec.layout(field.items);
      return given.map((one, n) => this.spec.open(layout, this.spec.close(layout, one, name + "[" + n + "]")));
    }
    number(field, given) {
      if (field.word) return this.spec.close(this.spec.layout(field.word), given, field.name);
      const value = this.spec.numberOf(field, given, field.name);
      this.checkFits(field, value, field.bits);
      return value;
    }
    checkFits(field, value, width) {
      // A signed field may be given as either reading of its bits, and cut to a narrower register.
      const low = field.signed ? -(1n << BigInt(field.bits - 1)) : 0n, high = 1n << BigInt(field.signed ? field.bits : width);
      if (value < low || value >= high) fail("value-too-large", "does not fit " + width + " bits", field.name);
    }
    encode(given, request = null) {
      const whole = this.complete(given, request), sent = request ? fieldsOf(request) : null;
      const scope = this.scope(fieldsOf(whole), sent), sink = { regs: {}, behind: [], written: [] };
      for (const [register, tree] of Object.entries(this.placement.fixed)) setRegister(sink, register, this.int(tree, scope), mask(registerBits(register)));
      for (const field of this.fields) this.store(field, whole[field.name], scope, sink);
      if (!this.request) {
        for (const block of Object.values(this.blocks)) {
          if (!block.at) continue;
          const size = this.int(block.size, scope);
          if (size > 0n && size <= MAX_BYTES) sink.behind.push([this.address(block, scope), new Uint8Array(Number(size))]);
        }
      }
      const mem = merge([...sink.behind, ...sink.written]);
      return { regs: sink.regs, mem, body: this.bodyOf(scope, sink, mem), value: whole };
    }
    bodyOf(scope, sink, mem) {
      const of = (names) => names.flatMap((name) => [...toBytes(sink.regs[name] || 0n, registerBits(name) / 8, "little")]);
      if (this.body === null) return Uint8Array.from(of(this.registers));
      const block = this.blocks[this.body];
      let size = this.int(block.size, scope);
      if (size < 0n) size = 0n;
      if (block.registers.length) return Uint8Array.from(of(block.registers).slice(0, Number(size)));
      const base = this.address(block, scope);
      for (const [start, data] of mem) {
        if (start <= base && base < start + BigInt(data.length)) {
          const from = Number(base - start);
          return data.slice(from, from + Number(size));
        }
      }
      return new Uint8Array(0);
    }
    store(field, given, scope, sink) {
      const place = this.placeOf(field.name);
      if (!place) return;
      if (field.list) { this.storeList(field, place, given, scope, sink); return; }
      const value = this.number(field, given);
      if (place.register) {
        let width = place.hi === undefined ? field.bits : place.hi - place.lo + 1;
        if (place.extend && value < 0n) width = registerBits(place.register) - place.lo;
        this.checkFits(field, value, width);
        const bits = mask(width) << BigInt(place.lo);
        setRegister(sink, place.register, (value << BigInt(place.lo)) & bits, bits);
      } else if (place.high) {
        setRegister(sink, place.high, (value & mask(64)) >> 32n, mask(32));
        setRegister(sink, place.low, value & mask(32), mask(32));
      } else {
        const { offset, size, bits } = this.span(field, place, scope);
        this.checkFits(field, value, bits);
        if (bits !== size * 8) fail("wrong-type", "part of a word cannot be written alone", field.name);
        const block = this.blocks[place.block];
        this.write(block, place.block, offset, toBytes(value & mask(bits), size, block.endian), scope, sink);
      }
    }
    write(block, name, offset, raw, scope, sink) {
      if (!block.registers.length) { sink.written.push([this.address(block, scope) + offset, raw]); return; }
      const start = Number(offset);
      let at = 0;
      for (const register of block.registers) {
        const size = registerBits(register) / 8, first = Math.max(start, at), last = Math.min(start + raw.length, at + size);
        if (first < last) {
          const shift = BigInt((first - at) * 8);
          setRegister(sink, register, fromBytes(raw.subarray(first - start, last - start), "little") << shift, mask((last - first) * 8) << shift);
        }
        at += size;
      }
      if (start + raw.length > at) fail("oversized", "does not fit the registers");
    }
    storeList(field, place, given, scope, sink) {
      if (!place.block) fail("wrong-type", "a list lies in a block", field.name);
      if (!Array.isArray(given)) fail("wrong-type", "is a list", field.name);
      if (!given.length) return;
      const size = field.bits / 8, stride = place.stride ? this.int(place.stride, scope) : BigInt(size);
      this.checkList(field, BigInt(given.length), stride, size);
      const step = Number(stride), block = this.blocks[place.block], base = this.int(place.at, scope);
      const out = new Uint8Array((given.length - 1) * step + size);
      given.forEach((item, n) => {
        const bytes = this.element(field, item, block, field.name + "[" + n + "]");
        // Between elements with a stride lie other fields.
        if (step === size) out.set(bytes, n * step);
        else this.write(block, place.block, base + stride * BigInt(n), bytes, scope, sink);
      });
      if (step === size) this.write(block, place.block, base, out, scope, sink);
    }
    element(field, item, block, path) {
      if (field.items) {
        const layout = this.spec.layout(field.items);
        return toBytes(this.spec.close(layout, item, path), field.bits / 8, layout.endian);
      }
      if (typeof item !== "bigint") fail("wrong-type", "does not fit " + field.bits + " bits", path);
      if (item < 0n || item >> BigInt(field.bits)) fail("value-too-large", "does not fit " + field.bits + " bits", path);
      return toBytes(item, field.bits / 8, block.endian);
    }

    // -- what it means ------------------------------------------------------------------------------------------

    /* In words, what a request asks for; empty where the message asks for nothing or contradicts itself. */
    meaning(value) {
      if (!this.call || !this.call.about) return "";
      const about = this.call.about, own = fieldsOf(value), base = this.scope(own, null);
      const scope = (local) => {
        const env = (name) => {
          if (Object.hasOwn(local, name)) return local[name];
          if (name === "cpl") return 0n;
          if (name === "enabled") return 1n;
          return Object.hasOwn(this.call.define, name) ? evaluate(this.call.define[name], env) : base(name);
        };
        return env;
      };
      try {
        if (!about.each) return part(about, scope({}));
        const items = value[about.each], kept = this.opened(scope, items), all = scope(kept);
        if (kept.complete === 0n) {
          return "the first " + items.length + " element" + (items.length === 1 ? "" : "s") + " of a list that is sent in parts; " + uncapped(this.call.doc);
        }
        let first = about.first ? this.int(about.first, all) : 0n;
        if (first < 0n) first = 0n;
        let last = about.count ? this.int(about.count, all) : BigInt(items.length);
        if (last > BigInt(items.length)) last = BigInt(items.length);
        const parts = [];
        for (let n = first; n < last; n++) parts.push(part(about, scope({ ...kept, it: items[Number(n)], index: n })));
        if (!parts.length) return "no element to do";
        return parts.slice(0, 3).join("; ") + (parts.length > 3 ? "; and " + (parts.length - 3) + " more" : "");
      } catch (error) {
        if (error instanceof HvError) return "";
        throw error;
      }
    }
    /* What a request that gets a handle has of it: the elements so far, the numbers that are kept, whether all are there. */
    opened(scope, items) {
      const use = this.call.opens;
      if (!use) return {};
      const plain = scope({}), kept = {};
      for (const [name, tree] of Object.entries(use.kept)) kept[name] = this.int(tree, plain);
      const known = { gathered: items, kept, parts: 1n };
      return { ...known, complete: use.complete ? this.int(use.complete, scope(known)) : 1n };
    }
  }
  function uncapped(doc) { return doc.slice(0, 1).toLowerCase() + doc.slice(1).replace(/\.+$/, ""); }
  function part(about, env) {
    const pages = integer(evaluate(about.pages, env)), start = integer(evaluate(about.start, env));
    const where = (pages < 0n ? "a range that ends before it begins," : pages + (pages === 1n ? " page" : " pages")) + " at " + hex(start);
    if (about.bits) return "set each by its bit: " + where;
    if (!about.to) {
      const facts = Object.entries(about.facts || {}).map(([name, tree]) => name + " " + integer(evaluate(tree, env))).join(", ");
      return facts ? "set " + facts + ": " + where : "ask for the state: " + where;
    }
    const value = integer(evaluate(about.to.of, env)), key = value.toString();
    let state;
    if (Object.hasOwn(about.to.states, key)) state = about.to.states[key];
    else if (about.to.has_otherwise) state = about.to.otherwise;
    else return "no known state (" + hex(value) + "): " + where;
    const size = { 512: "2 MiB", 262144: "1 GiB" }[about.hint ? integer(evaluate(about.hint, env)).toString() : ""];
    return state === null ? "change nothing: " + where : "make " + state + ": " + where + (size ? ", preferred page size " + size : "");
  }
  function setRegister(sink, name, value, bits) { sink.regs[name] = ((sink.regs[name] || 0n) & ~bits) | (value & bits); }
  function merge(pieces) {
    let out = [];
    for (const [address, data] of pieces) {
      if (!data.length) continue;
      let start = address, buffer = data;
      const rest = [];
      for (const [other, kept] of out) {
        const end = start + BigInt(buffer.length), keptEnd = other + BigInt(kept.length);
        if (keptEnd < start || end < other) { rest.push([other, kept]); continue; }
        // They touch or overlap: the new bytes lie over the old ones.
        const first = other < start ? other : start, joined = new Uint8Array(Number((end > keptEnd ? end : keptEnd) - first));
        joined.set(kept, Number(other - first));
        joined.set(buffer, Number(start - first));
        start = first; buffer = joined;
      }
      rest.push([start, buffer]);
      out = rest.sort((a, b) => a[0] < b[0] ? -1 : a[0] > b[0] ? 1 : 0);
    }
    return out;
  }

  return { Spec, Message, HvError, evaluate, big, hex, bytesOf, hexOf, registerBits };
})();
if (typeof module !== "undefined") module.exports = HvCodec;
