"""Programs in C and Rust that do nothing but call the generated accessors on what they read.

A line ``l NUMBER HEX`` is a layout: the answer has its fields as read, the bytes after each was written over bytes that
were all inverted, and for a word the fields as got and the word as set and stored. ``r NUMBER HEX`` is a register.
"""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

from hvabi.publish.code import code_of, ident, rust_module
from hvabi.publish.code_parts import WIDEST, layout_group, register_groups

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from hvabi.abi.specification import Abi
    from hvabi.publish.code_parts import Group, Slot

SECONDS = 120.0
C_FLAGS = ("-Wall", "-Wextra", "-Werror", "-pedantic")

C_HEAD = """
#include <stdio.h>
#include <string.h>
static uint8_t in[65536], out[65536];
static void number(uint64_t v) { printf("%llx ", (unsigned long long)v); }
static void wide(struct hvabi_u128 v) { printf("%llx%016llx ", (unsigned long long)v.hi, (unsigned long long)v.lo); }
static void bytes(const uint8_t *p, size_t n) { size_t i; for (i = 0; i < n; i++) printf("%02x", (unsigned)p[i]);
  printf(" "); }
static void layout(unsigned n, const uint8_t *p) { uint64_t w = 0; (void)w; (void)p; switch (n) {
"""
C_MID = "} }\nstatic void reg(unsigned n, uint64_t v) { uint64_t w = ~v; (void)w; switch (n) {\n"
C_TAIL = """} }
static char hex[200000];
int main(void) { char what; unsigned n; size_t i;
  while (scanf(" %c %u %199999s", &what, &n, hex) == 3) {
    size_t size = strlen(hex) / 2; uint64_t v = 0;
    for (i = 0; i < size; i++) { unsigned b = 0; sscanf(hex + 2 * i, "%2x", &b); in[i] = (uint8_t)b;
      out[i] = (uint8_t)~b; v = v << 8 | b; }
    if (what == 'l') layout(n, in); else reg(n, v);
    printf("\\n"); }
  return 0; }
"""
RUST_HEAD = """
use std::io::BufRead;
fn bytes(p: &[u8]) { for b in p { print!("{b:02x}"); } print!(" "); }
fn layout(n: usize, data: &[u8]) { match n {
"""
RUST_MID = "_ => panic!() } }\nfn reg(n: usize, v: u64) { match n {\n"
RUST_TAIL = """_ => panic!() } }
fn main() { for line in std::io::stdin().lock().lines() { let line = line.unwrap();
    let mut words = line.split(' '); let what = words.next().unwrap();
    let n: usize = words.next().unwrap().parse().unwrap(); let hex = words.next().unwrap();
    if what == "l" {
      let data: Vec<u8> = (0..hex.len() / 2).map(|i| u8::from_str_radix(&hex[2*i..2*i+2], 16).unwrap()).collect();
      layout(n, &data); } else { reg(n, u64::from_str_radix(hex, 16).unwrap()); }
    println!(); } }
"""


def layouts_of(abis: Sequence[Abi]) -> list[tuple[Abi, Group]]:
    return [(abi, layout_group(layout)) for abi in abis for layout in abi.layouts.values()]


def registers_of(abis: Sequence[Abi]) -> list[tuple[Abi, Group]]:
    return [(abi, group) for abi in abis for group in register_groups(abi)]


def readable(group: Group) -> list[Slot]:
    return [slot for slot in group.slots if slot.bits <= WIDEST]


def c_program(abis: Sequence[Abi]) -> str:
    out = [f'#include "hvabi_{ident(abi.id)}.h"' for abi in abis] + [C_HEAD]
    for number, (abi, group) in enumerate(layouts_of(abis)):
        name = f"hvabi_{ident(abi.id)}_{ident(group.name)}"
        body = []
        for slot in readable(group):
            f = f"{name}_{ident(slot.name)}"
            body.append(f"{'wide' if slot.bits > 64 else 'number'}({_c_cast(slot)}{f}_read(p));")
            body.append(f"{f}_write(out, {f}_read(p));")
        body.append(f"bytes(out, {name.upper()}_SIZE);")
        if group.word:
            body.append(f"w = ~{name}_load(p);")
            for slot in group.slots:
                f = f"{name}_{ident(slot.name)}"
                body.append(f"number({_c_cast(slot)}{f}_get({name}_load(p))); w = {f}_set(w, {f}_get({name}_load(p)));")
            body.append(f"{name}_store(out, w); bytes(out, {name.upper()}_SIZE);")
        out.append(f"case {number}: {' '.join(body)} break;")
    out.append(C_MID)
    for number, (abi, group) in enumerate(registers_of(abis)):
        name = f"hvabi_{ident(abi.id)}_{ident(group.name)}"
        body = []
        for slot in group.slots:
            if slot.bits < 64:
                f = f"{name}_{ident(slot.name)}"
                body.append(f"number({_c_cast(slot)}{f}_get(v)); number({f}_set(w, {f}_get(v)));")
        out.append(f"case {number}: {' '.join(body)} break;")
    return "\n".join([*out, C_TAIL])


def _c_cast(slot: Slot) -> str:
    return "" if slot.bits > 64 else "(uint64_t)"


def rust_program(abis: Sequence[Abi]) -> str:
    out = [RUST_HEAD]
    for number, (abi, group) in enumerate(layouts_of(abis)):
        at = f"code::{rust_module(abi.id)}::layouts::{rust_module(group.name)}"
        body = [f"let p: &[u8; {at}::SIZE] = data.try_into().unwrap(); let mut out = p.map(|b| !b);"]
        for slot in readable(group):
            f = ident(slot.name)
            body.append(f'print!("{{:x}} ", {at}::read_{f}(p)); {at}::write_{f}(&mut out, {at}::read_{f}(p));')
        body.append("bytes(&out);")
        if group.word:
            body.append(f"let word = {at}::load(p); let mut w = !word;")
            for slot in group.slots:
                f = ident(slot.name)
                body.append(f'print!("{{:x}} ", {at}::get_{f}(word)); w = {at}::set_{f}(w, {at}::get_{f}(word));')
            body.append(f"{at}::store(&mut out, w); bytes(&out);")
        out.append(f"{number} => {{ {' '.join(body)} }}")
    out.append(RUST_MID)
    for number, (abi, group) in enumerate(registers_of(abis)):
        at = f"code::{rust_module(abi.id)}::registers::{rust_module(group.name)}"
        body = ["let _ = v;"]
        for slot in group.slots:
            if slot.bits < 64:
                f = ident(slot.name)
                body.append(f'print!("{{:x}} {{:x}} ", {at}::get_{f}(v), {at}::set_{f}(!v, {at}::get_{f}(v)));')
        out.append(f"{number} => {{ {' '.join(body)} }}")
    return "\n".join([*out, RUST_TAIL])


def build_c(compiler: str, standard: str, abis: Sequence[Abi], folder: Path) -> Path:
    for abi in abis:
        (folder / f"hvabi_{ident(abi.id)}.h").write_text(code_of(abi, "c"))
    (folder / "driver.c").write_text(c_program(abis))
    run([compiler, f"-std={standard}", *C_FLAGS, "-I.", "driver.c", "-o", "driver-c"], folder)
    return folder / "driver-c"


def build_rust(compiler: str, abis: Sequence[Abi], folder: Path) -> Path:
    """The crate is built as users build it, no_std and with warnings as errors, and the driver against it."""
    names = sorted(rust_module(abi.id) for abi in abis)
    (folder / "code.rs").write_text("#![no_std]\n" + "".join(f"pub mod {name};\n" for name in names))
    for abi in abis:
        (folder / f"{rust_module(abi.id)}.rs").write_text(code_of(abi, "rust"))
    (folder / "driver.rs").write_text(rust_program(abis))
    run([compiler, "--edition", "2021", "-D", "warnings", "--crate-type", "rlib", "code.rs"], folder)
    run([compiler, "--edition", "2021", "-D", "warnings", "--extern", "code=libcode.rlib", "driver.rs", "-o",
         "driver-rust"], folder)  # fmt: skip
    return folder / "driver-rust"


def run(command: Iterable[str], folder: Path, text: str | None = None) -> str:
    done = subprocess.run(
        list(command), cwd=folder, input=text, capture_output=True, text=True, timeout=SECONDS, check=False
    )
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stderr[:4000]}"
    return done.stdout
