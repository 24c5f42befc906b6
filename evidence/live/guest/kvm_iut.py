"""KVM itself as an implementation under test, over hvabi's line protocol. Standard library only.

Usage: ``kvm_iut.py PARAMETERS.json`` speaks on standard input and output; ``kvm_iut.py PARAMETERS.json DEVICE …``, in
pairs, on serial lines, for ever; ``kvm_iut.py PARAMETERS.json --probe`` makes three calls whose answers are known, and
says by its exit code whether KVM works here.
"""

import json
import os
import sys
import tty

# Python's isolated mode, in which this is started, leaves out the program's own folder.
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import vcpu

PREFIX = "@hvabi "
MODES_32 = ("prot32", "compat", "real")


class Refusal(Exception):
    """A command that cannot be done; `kind` is ``unsupported`` or ``error``."""

    def __init__(self, kind, message):
        super().__init__(message)
        self.kind = kind


class Session:
    """The state of one conversation with a runner."""

    def __init__(self, parameters):
        self.parameters = parameters
        self.guest = None
        self.configured = None
        self.exits = False
        self.pending = None
        self.errno = 0
        self.call = vcpu.instruction()

    def answer(self, command):
        """Return the answer to a command, without its id."""
        name = command.get("cmd")
        method = getattr(self, f"do_{name}", None)
        if method is None:
            return {"unsupported": {"message": f"there is no command {name!r} here"}}
        try:
            return method(command)
        except Refusal as refusal:
            return {refusal.kind: {"message": str(refusal)}}
        except vcpu.Timeout:
            self._drop()
            return {"error": {"message": "KVM_RUN did not come back within its time"}}
        except OSError as error:
            self._drop()
            return {"error": {"message": f"KVM: {error.strerror or error}"}}

    def do_hello(self, command):
        if not command["min"] <= 1 <= command["max"]:
            raise Refusal("unsupported", "this is version 1 of the protocol")
        self.exits = "exits" in command.get("features", ())
        parameters = self.parameters
        abis = {
            parameters["abi"]: {
                "revisions": parameters["revisions"], "transports": ["vmcall64", "vmcall32"], "roles": ["host"],
                **({"profile": parameters["profile"]} if parameters.get("profile") else {}),
            }
        }  # fmt: skip
        version = f"{os.uname().release}, {self.call}, 32-bit mode {parameters['mode32']}"
        return {
            "ok": {
                "protocol": 1,
                "name": "Linux KVM",
                "version": version,
                "abis": abis,
                "features": ["exits", "inject"],
            }
        }

    def do_configure(self, command):
        parameters, config = self.parameters, command.get("config") or {}
        checks = (("abi", [parameters["abi"]]), ("revision", parameters["revisions"]),
                  ("transport", ["vmcall64", "vmcall32"]), ("role", ["host"]))  # fmt: skip
        for key, known in checks:
            if command.get(key) not in known:
                raise Refusal("unsupported", f"KVM here has no {key} {command.get(key)!r}")
        own = parameters.get("profile")
        if config.get("profile") not in (None, own):
            raise Refusal("unsupported", f"this kernel is {own}")
        for key in config:
            if key not in ("profile", "enabled", "memory", *parameters["config"]):
                raise Refusal("unsupported", f"KVM here has no {key}")
        self._drop()
        self.configured = {"transport": command["transport"], "enabled": bool(config.get("enabled", True))}
        return {"ok": {}}

    def do_reset(self, command):
        if self.configured is None:
            raise Refusal("error", "`reset` before `configure`")
        self.pending, self.errno = None, 0
        return {"ok": {}}

    def do_inject(self, command):
        if command.get("fault") != "vmm-error":
            raise Refusal("unsupported", f"KVM here cannot show {command.get('fault')!r}")
        self.errno = int(command["errno"], 0)
        return {"ok": {}}

    def do_query(self, command):
        raise Refusal("unsupported", "KVM keeps no states of pages for this call: its user space does")

    def do_stop(self, command):
        self._drop()
        return {"ok": {}}

    def do_call(self, command):
        if self.configured is None:
            raise Refusal("error", "`call` before `configure`")
        if self.pending is not None:
            raise Refusal("error", "`call` within a call")
        cpu = command.get("cpu") or {}
        wide = self.configured["transport"] == "vmcall64"
        if cpu.get("mode", "64") != ("64" if wide else "32"):
            raise Refusal("error", "the mode is not that of the transport")
        mode, cpl = "long" if wide else self.parameters["mode32"], cpu.get("cpl", 0)
        if mode == "real" and cpl:
            raise Refusal("unsupported", "real mode has no privilege levels")
        self.sent = {name: int(value, 0) for name, value in (command.get("regs") or {}).items()}
        guest = self._guest()
        guest.start(mode, cpl, self.sent, self.call)
        return self._step()

    def do_resume(self, command):
        if self.pending is None:
            raise Refusal("error", "`resume` without a conversation")
        for offset, data in command.get("mem") or ():
            self.guest.answer(int(offset, 0), bytes.fromhex(data))
        return self._step()

    def _step(self):
        """Run on, and say what came of it."""
        self.pending = None
        try:
            page = self.guest.run()
            while page is not None and not self.exits:
                self.guest.answer(self.parameters["ret_offset"], self.errno.to_bytes(8, "little"))
                self.errno = 0
                page = self.guest.run()
        except vcpu.Ended as end:
            self._drop()
            return {"ok": {"end": "stop", "reason": end.reason}}
        if page is not None:
            self.pending = True
            return {"yield": {"exit": {"abi": self.parameters["exit_abi"], "regs": {}, "mem": [["0x0", page.hex()]]}}}
        regs = self.guest.registers()
        found = {name: hex(regs[name]) for name in vcpu.REGISTERS[:16] if regs[name] != self.sent.get(name, 0)}
        found["rax"] = hex(regs["rax"])
        return {"ok": {"end": "return", "regs": found, "mem": []}}

    def _guest(self):
        if self.guest is None:
            self.guest = vcpu.Guest(self.parameters)
            if self.configured["enabled"]:
                self.guest.enable(self.parameters["capability"], 1 << self.parameters["nr"])
        return self.guest

    def _drop(self):
        if self.guest is not None:
            self.guest.close()
        self.guest = self.pending = None


def serve(lines, write, parameters, kind=Session):
    """Answer command lines until `stop` or the end of input."""
    session = kind(parameters)
    last = None
    for line in lines:
        if not line.startswith(PREFIX):
            continue
        command = None
        try:
            command = json.loads(line[len(PREFIX) :])
            number = command["id"]
            last = number
            found = session.answer(command)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            number, found = last, {"error": {"message": f"no command: {error!r}"}}
        write(PREFIX + json.dumps({"id": number, **found}, separators=(",", ":")) + "\n")
        if isinstance(command, dict) and command.get("cmd") == "stop":
            return


def probe(parameters):
    """Return why KVM is of no use here, or None: a call that is done, one that is refused, one that is unknown."""
    try:
        guest = vcpu.Guest(parameters)
        guest.enable(parameters["capability"], 1 << parameters["nr"])
        call = vcpu.instruction()
        wanted = ((parameters["nr"], 0x8000, 1, 0), (parameters["nr"], 0x8001, 1, parameters["refused"]),
                  (99, 0, 0, parameters["unknown"]))  # fmt: skip
        for nr, gpa, pages, answer in wanted:
            guest.start("long", 0, {"rax": nr, "rbx": gpa, "rcx": pages}, call)
            page = guest.run(5)
            if page is not None:
                guest.answer(parameters["ret_offset"], bytes(8))
                page = guest.run(5)
            found = guest.registers()["rax"]
            if page is not None or found != answer % 2**64:
                return f"hypercall {nr} answered {found:#x}, not {answer % 2**64:#x}"
    except vcpu.Timeout:
        return "KVM_RUN did not come back"
    except vcpu.Ended as end:
        return f"the guest ended: {end.reason}"
    except OSError as error:
        return f"{error.filename or 'KVM'}: {error.strerror or error}"
    return None


def serve_device(path, parameters, kind):
    """Answer on a serial line for ever: a runner that comes back finds a new session."""
    device = open(path, "r+b", buffering=0)  # for the life of the process
    tty.setraw(device.fileno())
    lines = open(device.fileno(), encoding="utf-8", errors="replace", newline="\n", closefd=False)

    def write(text):
        data = memoryview(text.encode())
        while data:
            data = data[device.write(data) :]

    if os.fork() == 0:
        while True:
            serve(lines, write, parameters, kind)


def main(words, kind=Session):
    """Serve, or probe."""
    with open(words[0]) as file:
        parameters = json.load(file)
    if words[1:] == ["--probe"]:
        reason = probe(parameters)
        print(reason or "usable")
        return 1 if reason else 0
    if len(words) > 1:
        for settings, device in zip(words[::2], words[1::2], strict=True):
            with open(settings) as file:
                serve_device(device, json.load(file), kind)
        print("HVABI READY", os.uname().release, flush=True)
        while True:
            os.wait()

    def put(text):
        sys.stdout.write(text)
        sys.stdout.flush()

    serve(sys.stdin, put, parameters, kind)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
