"""The bundled adapters as an implementation under test: a session of the line protocol."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

from hvabi.abi.errors import HvAbiError, UsageError
from hvabi.abi.registry import abi_ids, bundled, load
from hvabi.adapters.registry import guest_class, host_class
from hvabi.adapters.values import GuestReply, GuestResult, GuestStep, HostAnswer, Injection, VmmReply, VmmRequest
from hvabi.backend import GPA_PAGES, Backend, MemoryLayout, ModelError, PageState
from hvabi.conformance import frame
from hvabi.conformance.frame import ProtocolError, Unsupported
from hvabi.conformance.release import release

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import BinaryIO

    from hvabi.abi.registry import Spec
    from hvabi.adapters.guest import Guest
    from hvabi.adapters.host import Host

FEATURES = ("exits", "inject", "local-steps")
"""Every feature; ``exits`` and ``local-steps`` are shown only where they are asked for, because a runner that does
not know them could not answer what they yield."""

_NO_FAULT = Injection()
_OWN_CONFIG = ("memory", "profile", "enabled", "max_ranges", "scratch")


class Session:
    """One connection: commands in, answers out. It does no input and output itself.

    Args:
        exits: offer the feature ``exits``.
        local_steps: offer the feature ``local-steps``.

    """

    def __init__(self, *, exits: bool = False, local_steps: bool = False) -> None:
        self._features = {"inject"} | ({"exits"} if exits else set()) | ({"local-steps"} if local_steps else set())
        self._host: Host | None = None
        self._guest: Guest | None = None
        self._open: Any = None
        self._inject = _NO_FAULT
        self._to = PageState.PRIVATE
        self.stopped = False

    def handle(self, line: str | None) -> str | None:
        """Return the answer to a line, or None for log text. `line` None stands for one that was too long."""
        if line is None:
            answer = _error(None, f"a line is longer than {frame.MAX_LINE} bytes")
        else:
            try:
                command = frame.parse_line(line)
            except ProtocolError as error:
                answer = _error(None, str(error))
            else:
                if command is None:
                    return None
                answer = self.answer(command)
        text = frame.format_line(answer)
        if len(text) > frame.MAX_LINE:
            text = frame.format_line(_error(answer["id"], "the answer does not fit a line"))
        return text

    def answer(self, command: Mapping[str, Any]) -> dict[str, Any]:
        """Return the answer to a command, both as the JSON objects of their lines."""
        ident = command.get("id")
        if not isinstance(ident, int) or isinstance(ident, bool):
            return _error(None, "`id` is a JSON number")
        try:
            return {"id": ident, **self._command(command)}
        except Unsupported as error:
            return {"id": ident, "unsupported": {"message": error.message}}
        except (HvAbiError, ModelError) as error:
            if isinstance(error, HvAbiError) and error.code == "no-guest-role":  # of this revision
                return {"id": ident, "unsupported": {"message": error.message}}
            return _error(ident, str(error))

    def _command(self, command: Mapping[str, Any]) -> dict[str, Any]:
        name = frame.word(frame.argument(command, "cmd"), "cmd")
        handler = getattr(self, "_do_" + name, None) if name.isidentifier() else None
        if handler is None:
            raise Unsupported(f"there is no command {frame.shown(name)}")
        if self._open is not None and name not in ("resume", "reset", "configure", "stop", "hello"):
            raise ProtocolError(f"`{name}` while a conversation is open: send `resume` or `reset`")
        answer: dict[str, Any] = handler(command)
        return answer

    # -- commands -----------------------------------------------------------------------------------------------

    def _do_hello(self, command: Mapping[str, Any]) -> dict[str, Any]:
        low = frame.plain_number(frame.argument(command, "min"), "min")
        high = frame.plain_number(frame.argument(command, "max"), "max")
        frame.argument(command, "runner")
        if not low <= frame.VERSION <= high:
            raise Unsupported(f"this is protocol version {frame.VERSION} only")
        wanted = command.get("features")
        if isinstance(wanted, list):
            self._features |= {word for word in wanted if word in FEATURES}
        return {
            "ok": {
                "protocol": frame.VERSION,
                "name": "hvabi bundled adapters",
                "version": release(),
                "abis": {abi: _offer(abi) for abi in abi_ids() if not bundled(abi).draft},
                "features": sorted(self._features),
            }
        }

    def _do_configure(self, command: Mapping[str, Any]) -> dict[str, Any]:
        abi = frame.word(frame.argument(command, "abi"), "abi")
        revision = frame.word(frame.argument(command, "revision"), "revision")
        transport = frame.word(frame.argument(command, "transport"), "transport")
        role = frame.word(frame.argument(command, "role"), "role")
        config = command.get("config", {})
        if not isinstance(config, dict):
            raise ProtocolError("config is an object")
        profile = frame.word(config.get("profile", "spec"), "profile")
        try:
            offer = _offer(abi)
            if bundled(abi).draft or not revision or not transport:
                raise Unsupported(f"{abi} is not offered so")
            spec = load(abi, revision=revision, profile=profile)
            spec.transport(transport)
            own = _own_config(spec, config)
        except UsageError as error:
            raise Unsupported(str(error)) from error
        if role not in offer["roles"]:
            raise Unsupported(f"{abi} has no role {frame.shown(role)}")
        enabled = config.get("enabled", True if spec.abi.profile == "spec" else _profile_enabled(spec))
        if not isinstance(enabled, bool):
            raise ProtocolError("enabled is true or false")
        slots = frame.page_ranges(config["memory"], "memory") if "memory" in config else None
        layout = MemoryLayout(slots)
        bound = frame.number(config["max_ranges"], "max_ranges") if "max_ranges" in config else None
        scratch = _scratch(config)
        self._end_conversation()
        self._host = self._guest = None
        if role == "host":
            self._host = host_class(abi)(
                spec,
                transport=transport,
                config=own,
                # The protocol's bound is on the ranges that `query` shows: facts have none.
                backend=Backend(layout=layout, max_ranges=bound, max_fact_ranges=GPA_PAGES, facts=spec.abi.facts),
                enabled=enabled,
            )
        else:
            self._guest = guest_class(abi)(
                spec,
                transport=transport,
                config=own,
                scratch=scratch,
                enabled=enabled,
                steps="local-steps" in self._features,
            )
        return {"ok": {}}

    def _do_reset(self, command: Mapping[str, Any]) -> dict[str, Any]:
        if self._host is None and self._guest is None:
            raise ProtocolError("`reset` before `configure`")
        ranges = frame.state_ranges(command.get("ranges", []), "ranges", _state)
        facts = command.get("facts", {})
        if not isinstance(facts, dict):
            raise ProtocolError("facts is an object")
        spec = (self._host or self._guest).spec  # type: ignore[union-attr]  # one of them is there
        showable = _states(spec)
        for _, _, state in ranges:
            if state not in showable:
                raise Unsupported(f"{spec.id} cannot show the state {state.value}")
        known = {}
        for name, value in facts.items():
            if name not in spec.abi.facts:
                raise Unsupported(f"{spec.id} has no fact {frame.shown(name)}")
            known[name] = frame.page_ranges(value, f"fact {name}")
        self._end_conversation()
        if self._host is not None:
            self._host.backend.reset(ranges=[(start, end, state) for start, end, state in ranges], facts=known)
            self._host.memory.clear()
            self._host.reset()
        if self._guest is not None:
            self._guest.reset()
        return {"ok": {}}

    def _do_call(self, command: Mapping[str, Any]) -> dict[str, Any]:
        host = self._require_host("call")
        frame.plain_number(frame.argument(command, "vcpu"), "vcpu")
        cpl = self._cpl(command.get("cpu"), host)
        regs = frame.registers(command.get("regs", {}))
        mem = frame.memory(command.get("mem", []))
        for gpa, piece in mem:
            host.memory.poke(gpa, piece)
        inject, self._inject = self._inject, _NO_FAULT
        self._open = host.call(regs, cpl=cpl, inject=inject, exits="exits" in self._features)
        return self._advance(None)

    @staticmethod
    def _cpl(cpu: Any, host: Host) -> int:
        if cpu is None:
            return 0
        if not isinstance(cpu, dict):
            raise ProtocolError("cpu is an object")
        mode = cpu.get("mode", host.transport.mode)
        if mode not in ("64", "32"):
            raise ProtocolError('cpu.mode is "64" or "32"')
        cpl = frame.plain_number(cpu.get("cpl", 0), "cpl")
        if cpl > 3:
            raise ProtocolError("cpl is 0 to 3")
        if mode != host.transport.mode:
            raise Unsupported(f"transport {host.transport.name} is called in mode {host.transport.mode}")
        return cpl

    def _do_convert(self, command: Mapping[str, Any]) -> dict[str, Any]:
        if self._guest is None:
            raise ProtocolError("`convert` is for guests: configure role guest first")
        gpa = frame.number(frame.argument(command, "gpa"), "gpa")
        pages = frame.number(frame.argument(command, "pages"), "pages")
        to = _state(frame.argument(command, "to"))
        if to not in _states(self._guest.spec):
            raise Unsupported(f"{self._guest.spec.id} cannot ask for {to.value}")
        self._to = to
        self._open = self._guest.convert(gpa, pages, to)
        return self._advance(None)

    def _do_resume(self, command: Mapping[str, Any]) -> dict[str, Any]:
        if self._open is None:
            raise ProtocolError("`resume` without a conversation")
        regs = frame.registers(command.get("regs", {}))
        mem = frame.memory(command.get("mem", []))
        return self._advance(VmmReply(regs=regs, mem=mem) if self._host else GuestReply(regs=regs, mem=mem))

    def _do_query(self, command: Mapping[str, Any]) -> dict[str, Any]:
        host = self._require_host("query")
        return {
            "ok": {
                "ranges": [
                    [hex(run.start << 12), hex(run.end - run.start), run.state.value] for run in host.backend.query()
                ],
                "facts": {
                    name: frame.hex_pages((run.start, run.end) for run in runs)
                    for name in host.abi.facts
                    if (runs := tuple(host.backend.fact_runs(name)))
                },
            }
        }

    def _do_inject(self, command: Mapping[str, Any]) -> dict[str, Any]:
        host = self._require_host("inject")
        fault = frame.word(frame.argument(command, "fault"), "fault")
        calls = host.abi.served_calls
        progresses = [call.progress for call in calls if call.progress is not None]
        if fault == "vmm-error":
            if all(call.vmm is None for call in calls):
                raise Unsupported(f"{host.abi.id} has no VMM behind it")
            errno = frame.number(frame.argument(command, "errno"), "errno")
            if not errno:
                raise ProtocolError("errno is a positive number")
            inject = Injection(vmm_errno=errno)
        elif fault == "stop-after":
            pages = frame.number(frame.argument(command, "pages"), "pages")
            if not any(call.reports_parts(host.transport.name) for call in calls):
                raise Unsupported(f"{host.abi.id} has no partial progress")
            inject = Injection(stop_after=pages)
        elif fault == "event-pending":
            after = frame.number(frame.argument(command, "after"), "after")
            if after < 1:
                raise ProtocolError("after is 1 or more")
            if all(progress.chunk is None for progress in progresses):
                raise Unsupported(f"{host.abi.id} does not look for events")
            inject = Injection(event_after=after)
        elif fault == "memory-flip":
            flip = (frame.argument(command, "gpa"), frame.argument(command, "hex"))
            if not _has_memory(host):
                raise Unsupported(f"{host.abi.id} over {host.transport.name} reads no memory")
            inject = Injection(flips=frame.memory([list(flip)]))
        else:
            raise Unsupported(f"there is no fault {frame.shown(fault)}")
        self._inject = inject
        return {"ok": {}}

    def _do_stop(self, command: Mapping[str, Any]) -> dict[str, Any]:
        self._end_conversation()
        self.stopped = True
        return {"ok": {}}

    # -- conversations ------------------------------------------------------------------------------------------

    def _require_host(self, name: str) -> Host:
        if self._host is None:
            raise ProtocolError(f"`{name}` is for hosts: configure role host first")
        return self._host

    def _end_conversation(self) -> None:
        if self._open is not None:
            self._open.close()
        self._open = None
        self._inject = _NO_FAULT

    def _advance(self, reply: VmmReply | GuestReply | None) -> dict[str, Any]:
        """Go on with the open conversation until it yields or ends."""
        try:
            shown = next(self._open) if reply is None else self._open.send(reply)
        except StopIteration as end:
            self._open = None
            return {"ok": _result(end.value)}
        except BaseException:
            self._open = None
            raise
        if isinstance(shown, VmmRequest):
            exit_ = {"abi": shown.abi, "regs": frame.hex_regs(shown.regs), "mem": frame.hex_mem(shown.mem)}
            return {"yield": {"exit": exit_}}
        if isinstance(shown, GuestStep):
            return {"yield": {"step": shown.step, "ranges": frame.hex_pages(shown.ranges, self._to.value)}}
        return {"yield": {"regs": frame.hex_regs(shown.regs), "mem": frame.hex_mem(shown.mem)}}


def _error(ident: int | None, message: str) -> dict[str, Any]:
    return {"id": ident, "error": {"message": message}}


def _result(value: HostAnswer | GuestResult) -> dict[str, Any]:
    if isinstance(value, HostAnswer):
        out: dict[str, Any] = {"end": value.end, "regs": frame.hex_regs(value.regs), "mem": frame.hex_mem(value.mem)}
        if value.end == "fault":
            out["fault"] = value.fault
        if value.end == "stop":
            out["reason"] = value.reason or "the host cannot go on"
        return out
    return {"done": value.done, "ranges": frame.hex_pages(value.ranges, value.to.value)}


def _offer(abi: str) -> dict[str, Any]:
    """Return what the bundled adapters can do of an ABI, for ``hello``."""
    spec = bundled(abi)
    call = spec.convert_call
    roles = ["host"] if any(call.outcomes for call in spec.calls.values()) else []
    if call is not None and call.guest is not None:
        roles.append("guest")
    return {"revisions": list(spec.revisions), "transports": list(spec.transports), "roles": roles}


def _has_memory(host: Host) -> bool:
    """Whether the transport carries a part of some message in memory."""
    placements = host.transport.placements.values()
    return any(block.at is not None for placement in placements for block in placement.blocks.values())


def _own_config(spec: Spec, config: Mapping[str, Any]) -> dict[str, int]:
    """Return the ABI's own configuration keys. Raises `UsageError` for unknown ones."""
    own = {name: frame.number(value, f"config {name}") for name, value in config.items() if name in spec.abi.config}
    for name in config:
        if name not in spec.abi.config and name not in _OWN_CONFIG:
            raise UsageError.unknown("config key", name, [*spec.abi.config, *_OWN_CONFIG])
    return spec.config(own)


def _profile_enabled(spec: Spec) -> bool:
    enabled = spec.abi.profiles[spec.abi.profile].enabled
    return True if enabled is None else enabled


def _scratch(config: Mapping[str, Any]) -> tuple[int, int]:
    if "scratch" not in config:
        return (0x10, 0x20)
    rows = frame.page_ranges([config["scratch"]], "scratch")
    if not rows:
        raise ProtocolError("scratch has no pages")
    return rows[0]


def _state(value: Any) -> PageState:
    try:
        return PageState(value)
    except ValueError:
        raise ProtocolError(f"{frame.shown(value)} is no page state") from None


@lru_cache(maxsize=64)
def _states(spec: Spec) -> frozenset[PageState]:
    """Return the states that the ABI can show."""
    call = spec.abi.convert_call
    if call is None or call.convert is None or call.convert.to is None:
        return frozenset(PageState)
    words = {word for word in (*call.convert.to.states.values(), call.convert.to.otherwise) if word}
    return frozenset({PageState(word) for word in words} | {PageState.PRIVATE})


def serve(source: BinaryIO, sink: BinaryIO, *, exits: bool = False, local_steps: bool = False) -> int:
    """Serve one connection until ``stop`` or the end of input; return the exit status, 0."""
    session = Session(exits=exits, local_steps=local_steps)
    for line in frame.read_lines(source):
        answer = session.handle(line)
        if answer is not None:
            sink.write(answer.encode())
            sink.flush()
        if session.stopped:
            break
    return 0
