/* The encoder and decoder of a page: a form over HvCodec. Either side can be edited; the other follows. */
"use strict";
(() => {
  const root = document.getElementById("try");
  const model = JSON.parse(document.getElementById("model").textContent);
  const { Spec, HvError, hex, big, bytesOf, hexOf } = HvCodec;
  const MAX_ROWS = 64;
  /* Every expression that bytes or their meaning depend on: configuration that none of them reads has no control. */
  const read = JSON.stringify([model.messages, model.transports, model.calls]);

  const make = (name, attributes = {}, ...children) => {
    const node = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) {
      if (key === "on") for (const [event, action] of Object.entries(value)) node.addEventListener(event, action);
      else if (value === true) node.setAttribute(key, "");
      else if (value !== false && value !== null && value !== undefined) node.setAttribute(key, value);
    }
    node.append(...children.filter((child) => child !== null && child !== undefined));
    return node;
  };
  const option = (value, text, chosen) => make("option", { value, selected: value === chosen }, text);

  // -- state ----------------------------------------------------------------------------------------------------

  const layouts = Object.keys(model.layouts).filter((name) => model.layouts[name].size <= 64);
  const state = { what: Object.keys(model.messages)[0], transport: null, revision: model.revision, profile: "spec", config: {},
    value: {}, auto: new Set(), wire: { regs: {}, mem: [] }, asked: null, error: null, shape: "" };
  let spec, codec = null, layout = null;

  function settle() {
    spec = new Spec(model, { revision: state.revision, profile: state.profile, config: state.config });
    layout = state.what.startsWith("=") ? state.what.slice(1) : null;
    codec = null;
    if (layout) return;
    if (!spec.transports(state.what).length) state.what = Object.keys(model.messages).find((name) => spec.transports(name).length);
    const carried = spec.transports(state.what);
    if (!carried.includes(state.transport)) state.transport = carried[0] || null;
    if (state.transport) codec = spec.message(state.what, state.transport);
  }
  function fields() { return layout ? spec.layout(layout).fields : codec ? codec.fields : []; }
  function requestValue() {
    if (!codec || !codec.request) return null;
    if (state.asked && state.asked.what === codec.request.name && state.asked.transport === state.transport) {
      try { return codec.request.complete(state.asked.value); } catch (error) { known(error); }
    }
    return codec.request.complete(zeroes(codec.request));
  }
  function zeroes(message) {
    const given = {};
    for (const field of message.fields) if (!field.const && !field.default && !field.reserved && !field.list) given[field.name] = 0n;
    return given;
  }
  function known(error) { if (!(error instanceof HvError)) throw error; }

  /* The fields that hold what they would hold if they were left out: they follow the others. */
  function following(value) {
    const found = new Set();
    if (!codec) return found;
    for (const field of codec.fields) {
      if (!field.const && !field.default && !field.reserved) continue;
      const rest = { ...value };
      delete rest[field.name];
      try {
        if (same(codec.complete(rest, requestValue())[field.name], value[field.name])) found.add(field.name);
      } catch (error) { known(error); }
    }
    return found;
  }
  const same = (a, b) => JSON.stringify(a, text) === JSON.stringify(b, text);
  const text = (_, value) => typeof value === "bigint" ? hex(value) : value;

  function fromFields(value) {
    attempt(() => {
      if (layout) {
        const bytes = spec.encodeLayout(layout, value);
        state.value = spec.decodeLayout(layout, bytes);
        state.wire = { bytes };
        return;
      }
      const given = Object.fromEntries(Object.entries(value).filter(([name]) => !state.auto.has(name)));
      const out = codec.encode(given, requestValue());
      state.value = out.value;
      state.wire = { regs: out.regs, mem: out.mem };
      state.auto = following(out.value);
    });
  }
  function fromWire(wire) {
    attempt(() => {
      if (layout) state.value = spec.decodeLayout(layout, wire.bytes);
      else state.value = codec.decode(wire, requestValue());
      state.wire = wire.body ? rewired() : wire;
      state.auto = following(state.value);
    });
  }
  function rewired() { const out = codec.encode(state.value, requestValue()); return { regs: out.regs, mem: out.mem }; }
  function attempt(action) {
    state.error = null;
    try { action(); } catch (error) { known(error); state.error = error; }
    if (codec && !codec.request && !state.error) state.asked = { what: state.what, transport: state.transport, value: state.value };
    show();
  }
  function fresh() {
    settle();
    state.auto = new Set();
    if (layout) fromFields({});
    else if (codec) {
      state.auto = new Set(codec.fields.filter((field) => field.const || field.default || field.reserved).map((field) => field.name));
      fromFields(zeroes(codec));
    } else show();
  }
  function load(example) {
    if (example.layout) {
      Object.assign(state, { what: "=" + example.layout });
      settle();
      fromWire({ bytes: bytesOf(example.hex) });
      return;
    }
    const config = Object.fromEntries(Object.entries(example.config || {}).map(([name, value]) => [name, big(value)]));
    Object.assign(state, { what: example.message, transport: example.transport, config,
      revision: example.revision || model.revision, profile: example.profile || "spec" });
    settle();
    const regs = Object.fromEntries(Object.entries(example.regs).map(([name, value]) => [name, big(value)]));
    fromWire({ regs, mem: example.mem.map(([at, data]) => [big(at), bytesOf(data)]) });
  }

  // -- numbers and dumps as text ----------------------------------------------------------------------------------

  function parsed(field, typed) {
    const word = typed.trim().replace(/_(?=[0-9a-fA-F])/g, (match, at) => /^-?0?[xb]?[0-9a-fA-F_]*$/i.test(typed.trim()) ? "" : match);
    if (field.enum && Object.hasOwn(spec.enumValues(field.enum), typed.trim())) return big(spec.enumValues(field.enum)[typed.trim()]);
    if (!/^-?(0x[0-9a-f]+|0b[01]+|[0-9]+)$/i.test(word)) {
      throw new HvError("wrong-type", typed.trim() ? "is not a number" + (field.enum ? " and not a name of " + field.enum : "") : "is empty", field.name);
    }
    return big(word.toLowerCase());
  }
  function printed(field, value) {
    if (field.enum) {
      const name = Object.entries(spec.enumValues(field.enum)).find(([, number]) => big(number) === value);
      if (name) return name[0];
    }
    return hex(value);
  }
  function note(field, value) {
    if (field.enum) {
      const found = Object.entries(spec.enumValues(field.enum)).find(([, number]) => big(number) === value);
      if (found) return hex(value) + ": " + model.enums[field.enum].docs[found[0]];
      return value === 0n && field.reserved ? "" : "no name in " + field.enum;
    }
    if (field.reserved === "zero" && value) return "must be zero";
    const plain = value < 0n || value > 9n ? value.toString() : "";
    if (field.unit && value > 0n && value < 1n << 32n) return plain ? plain + " " + field.unit + "s" : field.unit + "s";
    return plain.length <= 10 ? plain : "";
  }
  function wrongNote(field, value) {
    return Boolean((field.reserved === "zero" && value) || (field.enum && !field.reserved
      && !Object.values(spec.enumValues(field.enum)).some((number) => big(number) === value)));
  }
  function dump(pieces) {
    const lines = [];
    for (const [start, data] of pieces) {
      let skipped = false;
      for (let at = 0; at < data.length; at += 16) {
        const row = data.subarray(at, at + 16);
        if (at && at + 16 < data.length && row.every((byte) => !byte)) {
          if (!skipped) lines.push("*");
          skipped = true;
          continue;
        }
        skipped = false;
        const pairs = hexOf(row).match(/../g);
        lines.push((start + BigInt(at)).toString(16).padStart(8, "0") + "  " + pairs.slice(0, 8).join(" ")
          + (pairs.length > 8 ? "  " + pairs.slice(8).join(" ") : ""));
      }
    }
    return lines.join("\n");
  }
  /* Lines of "address  bytes"; "*" stands for zeroes up to the next line. Bytes without an address are the message itself. */
  function undump(typed) {
    const rows = typed.split("\n").map((line) => line.trim()).filter(Boolean);
    if (rows.length && !rows.some((line) => line === "*" || /^(0x)?[0-9a-f]{5,16}:?\s/i.test(line))) return { body: bytesOf(rows.join("").replace(/\s/g, "")) };
    const mem = [];
    let gap = false;
    for (const line of rows) {
      if (line === "*") { gap = true; continue; }
      const match = /^(?:0x)?([0-9a-f]+):?\s+([0-9a-f\s]*)$/i.exec(line);
      if (!match) throw new HvError("bad-hex", "not an address and bytes: " + line.slice(0, 40), "memory");
      const at = BigInt("0x" + match[1]), data = bytesOf(match[2].replace(/\s/g, "")), last = mem[mem.length - 1];
      const end = last ? last[0] + BigInt(last[1].length) : null;
      if (last && (at === end || (gap && at > end && at - end < 1n << 20n))) {
        const joined = new Uint8Array(Number(at - last[0]) + data.length);
        joined.set(last[1]);
        joined.set(data, Number(at - last[0]));
        last[1] = joined;
      } else mem.push([at, data]);
      gap = false;
    }
    return { mem };
  }

  // -- the form -------------------------------------------------------------------------------------------------

  const settings = make("div", { class: "settings" });
  const said = make("p", { class: "said", role: "status", "aria-live": "polite" });
  const left = make("div", { class: "side" }), right = make("div", { class: "side" });
  let inputs = new Map(), notes = new Map();

  function labelled(name, control) { return make("label", {}, make("span", {}, name), control); }
  function select(values, chosen, change) {
    return make("select", { on: { change: (event) => change(event.target.value) } }, ...values.map(([value, label]) => option(value, label, chosen)));
  }
  function buildSettings() {
    const what = make("select", { on: { change: (event) => { state.what = event.target.value; fresh(); } } },
      make("optgroup", { label: "Messages" }, ...Object.keys(model.messages).filter((name) => spec.transports(name).length).map((name) => option(name, name, state.what))),
      layouts.length ? make("optgroup", { label: "Words and structures" }, ...layouts.map((name) => option("=" + name, name, state.what))) : null);
    const parts = [labelled("What", what)];
    if (codec) {
      const carried = spec.transports(state.what);
      if (carried.length > 1) parts.push(labelled("Transport", select(carried.map((name) => [name, name]), state.transport, (value) => { state.transport = value; fresh(); })));
    }
    if (model.revisions.length > 1) parts.push(labelled("Revision", select(model.revisions.map((name) => [name, name]), state.revision, (value) => { state.revision = value; fresh(); })));
    if (!layout && guarded()) parts.push(labelled("Profile", select(Object.keys(model.profiles).map((name) => [name, name]), state.profile, (value) => { state.profile = value; fresh(); })));
    for (const [name, key] of Object.entries(layout ? {} : model.config)) {
      if (!read.includes(JSON.stringify(["n", name]))) continue;
      const value = spec.config[name], change = (typed) => {
        attempt(() => {
          const chosen = parsed({ name }, typed);
          if ((key.min && chosen < big(key.min)) || (key.max && chosen > big(key.max))) throw new HvError("bad-config-value", "is out of range", name);
          state.config = { ...state.config, [name]: chosen };
          settle();
        });
        if (!state.error) fromFields(state.value);
      };
      const control = key.choices.length ? select(key.choices.map((choice) => [choice, big(choice).toString()]), hex(value), change)
        : make("input", { type: "text", value: hex(value), size: 12, on: { change: (event) => change(event.target.value) } });
      control.title = key.doc;
      parts.push(labelled(name, control));
    }
    if (model.examples.length) {
      parts.push(labelled("Example", make("select", { on: { change: (event) => { if (event.target.value) load(model.examples[Number(event.target.value)]); } } },
        option("", "…", ""), ...model.examples.map((example, n) => option(String(n), example.name, "")))));
    }
    settings.replaceChildren(...parts);
  }
  /* Whether any place depends on a policy: else the profile makes no difference to bytes. */
  function guarded() {
    return Object.values(model.transports).some((transport) => Object.values(transport.messages).some((message) =>
      [...Object.values(message.blocks), ...Object.values(message.place).flat()].some((item) => item.policy)));
  }

  function row(path, field, depth, get, set) {
    const input = make("input", { type: "text", spellcheck: "false", autocomplete: "off", "aria-label": path,
      list: field.enum ? "names-" + field.enum : null,
      on: { input: (event) => attemptEdit(event.target, () => set(parsed(field, event.target.value)), field) } });
    const remark = make("span", { class: "remark" });
    inputs.set(path, { input, print: () => { const value = get(); return value === undefined ? "" : printed(field, value); } });
    notes.set(path, () => {
      const value = get();
      if (value === undefined) return;
      remark.textContent = note(field, value);
      remark.classList.toggle("wrong", wrongNote(field, value));
    });
    return make("div", { class: "row depth" + depth + (field.bits > 64 ? " long" : "") + (field.reserved ? " reserved" : ""), title: field.doc, "data-path": path },
      make("span", { class: "name" }, make("code", {}, path.split(".").pop())), input, remark);
  }
  function attemptEdit(input, action, field) {
    try { action(); } catch (error) {
      known(error);
      state.error = error.path ? error : new HvError(error.code, error.reason, field.name);
      show();
    }
  }
  const clone = (value) => typeof value === "bigint" || typeof value === "string" ? value
    : Array.isArray(value) ? value.map(clone) : Object.fromEntries(Object.entries(value).map(([name, item]) => [name, clone(item)]));
  function at(value, keys) { return keys.reduce((item, key) => item === undefined ? undefined : item[key], value); }
  function edit(keys, part) {
    const value = clone(state.value);
    let spot = value;
    keys.slice(0, -1).forEach((key) => { spot = spot[key]; });
    spot[keys[keys.length - 1]] = part;
    state.auto.delete(keys[0]);
    fromFields(value);
  }
  function rows(field, path, keys, depth) {
    const found = [];
    const word = field.word ? spec.layout(field.word) : null;
    if (field.list) {
      const items = at(state.value, keys) || [];
      const inside = field.items ? spec.layout(field.items) : null;
      const empty = () => inside ? spec.open(inside, 0n) : 0n;
      found.push(make("div", { class: "row list depth" + depth, title: field.doc, "data-path": path }, make("span", { class: "name" }, make("code", {}, field.name)),
        make("span", { class: "remark" }, items.length + (items.length === 1 ? " element" : " elements")),
        make("span", {}, make("button", { type: "button", on: { click: () => edit(keys, [...items, empty()]) } }, "add"),
          items.length ? make("button", { type: "button", on: { click: () => edit(keys, items.slice(0, -1)) } }, "remove last") : null)));
      items.slice(0, MAX_ROWS).forEach((_, n) => {
        const own = path + "[" + n + "]";
        if (inside) {
          found.push(make("div", { class: "row element depth" + (depth + 1) }, make("span", { class: "name" }, make("code", {}, own))));
          for (const part of inside.fields) found.push(...rows(part, own + "." + part.name, [...keys, n, part.name], depth + 2));
        } else found.push(row(own, { ...field, list: false, name: own }, depth + 1, () => at(state.value, [...keys, n]), (value) => edit([...keys, n], value)));
      });
      if (items.length > MAX_ROWS) found.push(make("div", { class: "row" }, make("span", { class: "remark" }, items.length - MAX_ROWS + " more are not shown")));
      return found;
    }
    if (word) {
      const whole = () => { const value = at(state.value, keys); return value === undefined ? undefined : spec.close(word, value, field.name); };
      found.push(row(path, field, depth, whole, (value) => {
        if (value < 0n || value >> BigInt(field.bits)) throw new HvError("value-too-large", "does not fit " + field.bits + " bits", path);
        edit(keys, spec.open(word, value));
      }));
      for (const part of word.fields) found.push(...rows(part, path + "." + part.name, [...keys, part.name], depth + 1));
      return found;
    }
    found.push(row(path, field, depth, () => at(state.value, keys), (value) => edit(keys, value)));
    return found;
  }
  function buildFields() {
    inputs = new Map(); notes = new Map();
    const placed = fields().filter((field) => layout || field.list || codec.placeOf(field.name));
    left.replaceChildren(make("h3", {}, "Fields"), ...placed.flatMap((field) => rows(field, field.name, [field.name], 0)));
    const parts = [make("h3", {}, "On the wire")];
    if (layout) {
      const box = make("input", { type: "text", class: "bytes", spellcheck: "false", "aria-label": "bytes",
        on: { input: (event) => attemptEdit(event.target, () => fromWire({ bytes: bytesOf(event.target.value.replace(/\s/g, "")) }), { name: "bytes" }) } });
      inputs.set("bytes", { input: box, print: () => state.wire.bytes ? hexOf(state.wire.bytes).match(/../g).join(" ") : "" });
      const whole = make("output", { class: "mono" });
      notes.set("bytes", () => { whole.textContent = state.wire.bytes ? "as a number: " + hex(spec.close(spec.layout(layout), state.value, "")) : ""; });
      parts.push(make("div", { class: "row" }, make("span", { class: "name" }, "bytes"), box), whole);
    } else {
      for (const register of codec.registers) {
        const input = make("input", { type: "text", spellcheck: "false", autocomplete: "off", "aria-label": register,
          on: { input: (event) => attemptEdit(event.target, () => fromWire({ ...state.wire, regs: { ...state.wire.regs, [register]: parsed({ name: register }, event.target.value) } }), { name: register }) } });
        inputs.set("=" + register, { input, print: () => hex((state.wire.regs || {})[register] || 0n) });
        parts.push(make("div", { class: "row" }, make("span", { class: "name" }, make("code", {}, register)), input));
      }
      if (Object.values(codec.blocks).some((block) => block.at)) {
        const area = make("textarea", { rows: 9, spellcheck: "false", "aria-label": "memory",
          on: { input: (event) => attemptEdit(event.target, () => {
            const given = undump(event.target.value);
            fromWire(given.body ? given : { regs: state.wire.regs, mem: given.mem });
          }, { name: "memory" }) } });
        inputs.set("=memory", { input: area, print: () => dump(state.wire.mem || []) });
        parts.push(make("p", { class: "remark" }, "Memory: address, then bytes. * stands for zeroes. Bytes alone are taken as the message."), area);
      }
    }
    right.replaceChildren(...parts);
    const lists = new Set(Array.from(left.querySelectorAll("input[list]"), (input) => input.getAttribute("list").slice(6)));
    for (const name of lists) {
      left.append(make("datalist", { id: "names-" + name }, ...Object.keys(spec.enumValues(name)).map((value) => make("option", { value }))));
    }
  }
  function shapeOf() {
    const count = (value) => Array.isArray(value) ? value.length : "";
    return [state.what, state.transport, state.revision, state.profile, ...fields().map((field) => count(state.value[field.name]))].join("|");
  }
  function show() {
    const shape = shapeOf();
    if (shape !== state.shape) {
      state.shape = shape;
      buildSettings();
      buildFields();
    }
    for (const { input, print } of inputs.values()) {
      if (input !== document.activeElement) input.value = print();
      input.classList.remove("bad");
    }
    for (const update of notes.values()) update();
    said.className = "said" + (state.error ? " bad" : "");
    if (state.error) {
      said.textContent = state.error.code + ": " + state.error.message;
      const at = inputs.get(state.error.path) || inputs.get("=" + state.error.path);
      if (at) at.input.classList.add("bad");
      else if (document.activeElement && root.contains(document.activeElement)) document.activeElement.classList.add("bad");
    } else {
      said.textContent = codec ? codec.meaning(state.value) || model.messages[state.what].doc : spec.layout(layout).size + " bytes, " + spec.layout(layout).endian + " endian";
    }
  }

  // -- links ----------------------------------------------------------------------------------------------------

  function linked() {
    const wire = layout ? { layout, hex: hexOf(state.wire.bytes) } : { message: state.what, transport: state.transport, revision: state.revision,
      profile: state.profile, config: state.config, regs: state.wire.regs, mem: state.wire.mem.map(([start, data]) => [start, squeezed(data)]) };
    return "#try=" + encodeURIComponent(JSON.stringify(wire, text));
  }
  const squeezed = (data) => hexOf(data).replace(/^((?:..)*?)$/, "$1").replace(/((?:[0-9a-f]{2})*?)((?:00){16,})/g, (_, kept, zeroes) => kept + "*" + zeroes.length / 2 + "*");
  function opened() {
    if (!location.hash.startsWith("#try=")) return false;
    try {
      load(JSON.parse(decodeURIComponent(location.hash.slice(5))));
      document.getElementById("decoder").scrollIntoView();
      return true;
    } catch (error) {
      // A link that somebody cut short: the form is still there, and says so.
      state.error = new HvError("bad-link", "the link to a message cannot be read");
      return false;
    }
  }

  root.append(settings, said, make("div", { class: "sides" }, left, right),
    make("p", { class: "dim" }, make("button", { type: "button", on: { click: () => { location.hash = linked(); } } }, "Put into the address"),
      " Numbers are hex, decimal or the names of the tables. Nothing leaves this page."));
  root.hidden = false;
  settle();
  if (!opened()) {
    const first = model.examples.find((example) => example.message);
    const broken = state.error;
    if (first) load(first); else fresh();
    if (broken) { state.error = broken; show(); }
  }
  window.addEventListener("hashchange", opened);
  for (const button of document.querySelectorAll("button.load")) {
    button.hidden = false;
    button.addEventListener("click", () => {
      load(model.examples[Number(button.dataset.example)]);
      document.getElementById("decoder").scrollIntoView();
    });
  }
})();
