"""Runs test vectors of hvabi against a host, in plain Python and without hvabi. Copy it and put your host in.

``python3 consume.py DIR/kvm-page-enc-status@v12.host.json``
"""

import json
import sys
from pathlib import Path

PRIVATE = "private"


def run(path, host):
    """Run a file's tests. Return how many there were and the failures. Facts are not compared here.

    `host(config, ranges, regs, memory, cpl)` returns how the call ends, the registers that it wrote, the bytes that it
    wrote as {address: byte}, and the ranges after it; a range is [first page, end page, state].
    """
    data = json.loads(Path(path).read_text(encoding="utf-8"))
    ran, failures, policies = 0, [], {}
    for group in data["groups"]:
        for test in group["tests"]:
            if test.get("profile") or test.get("features"):
                continue  # for implementations of that profile, or that can show more than a host shows here
            ran += 1
            wrong = run_test(test, group["config"], host, policies)
            if wrong:
                failures.append(f"{test['id']}: {wrong}")
    return ran, failures


def run_test(test, config, host, policies):
    """Run the steps of a test. Return what is wrong, or nothing."""
    for step in test["steps"]:
        if "before" in step:
            ranges, memory = pages(step["before"]["ranges"]), {}
        memory.update(spread(step.get("mem", [])))
        regs = {name: int(value, 16) for name, value in step["regs"].items()}
        end, wrote, stored, after = host(config, ranges, dict(regs), dict(memory), step.get("cpl", 0))
        now = {**memory, **stored}
        found = [differs(one, end, {**regs, **wrote}, regs, now, memory, after) for one in step["expect"]]
        if all(found):
            return found[0]
        for name, value in step["expect"][found.index("")].get("policies", {}).items():
            if found.count("") == 1 and policies.setdefault(name, value) != value:
                return f"policy {name} was {policies[name]} and is {value} now"
        ranges, memory = after, now
    return ""


def differs(one, end, regs, sent, memory, before, after):
    """Return what is not as one right answer has it, or nothing."""
    if end != one["end"]:
        return f"ends with {end}, not {one['end']}"
    want = {**sent, **{name: int(value, 16) for name, value in one["regs"].items()}}
    free = {name: int(mask, 16) for name, mask in one.get("nonzero", [])}
    for name in sorted((want.keys() | regs.keys()) - set(one.get("may_change", []))):
        value, mask = regs.get(name, 0), free.get(name, 0)
        if (value ^ want.get(name, 0)) & ~mask or (mask and not value & mask):
            return f"{name} is {value:#x}, not {want.get(name, 0):#x}"
    bytes_wanted = {**before, **spread(one.get("mem", []))}
    loose = [(int(at, 16), int(at, 16) + int(size, 16)) for at, size in one.get("may_change_mem", [])]
    for at in sorted(memory.keys() | bytes_wanted.keys()):
        if memory.get(at, 0) != bytes_wanted.get(at, 0) and not any(low <= at < high for low, high in loose):
            return f"the byte at {at:#x} is {memory.get(at, 0):#04x}, not {bytes_wanted.get(at, 0):#04x}"
    ours, theirs = pages(one["after"]["ranges"]), after
    for at, count in one["after"].get("loose", []):
        first = int(at, 16) >> 12
        ours, theirs = (paint(it, first, first + int(count, 16), PRIVATE) for it in (ours, theirs))
    return "" if ours == theirs else f"the pages are {theirs}, not {ours}"


def pages(rows):
    return [[int(at, 16) >> 12, (int(at, 16) >> 12) + int(count, 16), state] for at, count, state in rows]


def spread(pieces):
    return {int(at, 16) + n: byte for at, data in pieces for n, byte in enumerate(bytes.fromhex(data))}


def paint(ranges, first, end, state):
    """Return the ranges with [first, end) in a state: sorted, merged, private left out."""
    parts = [[first, end, state]]
    for low, high, old in ranges:
        parts += [[low, min(high, first), old], [max(low, end), high, old]]
    out = []
    for low, high, own in sorted(part for part in parts if part[0] < part[1] and part[2] != PRIVATE):
        if out and out[-1][1] == low and out[-1][2] == own:
            out[-1][1] = high
        else:
            out.append([low, high, own])
    return out


def page_enc_status(config, ranges, regs, memory, cpl):
    """Answer as a host of kvm-page-enc-status v12, KVM's old hypercall 12. Your own host goes here."""
    gpa, count = regs["rbx"], regs["rcx"]
    if cpl:
        answer = -1  # EPERM
    elif regs["rax"] != 12 or config.get("enabled") is False:
        answer = -1000  # KVM_ENOSYS
    elif gpa % 4096 or not count or (gpa >> 12) + count >= 1 << 64:
        answer = -22  # EINVAL
    else:
        end = min((gpa >> 12) + count, 1 << 52)  # there are no more pages
        answer, after = 0, paint(ranges, gpa >> 12, end, PRIVATE if regs["rdx"] else "shared")
        if len(after) > max(len(ranges), int(config.get("max_ranges", hex(1 << 64)), 16)):
            answer = 22  # no room for another range: user space refuses, with a positive errno
        else:
            ranges = after
    return "return", {"rax": answer % (1 << 64)}, {}, ranges


if __name__ == "__main__":
    count, bad = run(sys.argv[1], page_enc_status)
    print("\n".join(bad) or "no failure", f"in {count} tests")
    sys.exit(bool(bad))
