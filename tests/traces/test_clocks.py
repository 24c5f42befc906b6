"""The time of a record, from what stands before it."""

from __future__ import annotations

import pytest

from hvabi.traces.clocks import iso_time, kernel_time, printk_time, program_time, trace_time

TIMES = {
    "printk": ("[   56.146336] ", 56.146336),
    "archive-with-one-space": ("[ 56.146336] ", 56.146336),
    "long-uptime": ("[123456.000001] ", 123456.000001),
    "level": ("<6>[   56.146336] ", 56.146336),
    "caller": ("[   56.146336][  T123] ", 56.146336),
    "difference": ("[   56.146336 <    0.000015>] ", 56.146336),
    "syslog": ("Dec 12 04:50:01 host kernel: [   56.146336] ", 56.146336),
    "journal-iso": ("2020-12-12T04:50:01+0000 host kernel: [   56.146336] ", 56.146336),
    "journal-monotonic": ("[   56.146336] host kernel: ", 56.146336),
    "dmesg-x": ("kern  :info  : [   56.146336] ", 56.146336),
    "kmsg": ("6,1234,56146336,-;", 56.146336),
    "two-clocks": ("[   99.000000] host kernel: [   56.146336] ", 56.146336),
    "syslog-without": ("Dec 12 04:50:01 host kernel: ", None),
    "time-of-day": ("[Sat Dec 12 04:56:03 2020] ", None),
    "nothing": ("", None),
    "no-fraction": ("[ 56] ", None),
}


@pytest.mark.parametrize(("prefix", "seconds"), TIMES.values(), ids=TIMES.keys())
def test_times(prefix: str, seconds: float | None) -> None:
    assert printk_time(prefix) == seconds


TRACERS = {
    "ftrace": (" qemu-system-x86-2199    [003] d..1.    56.146336: ", 56.146336),
    "comm-with-spaces": ("  CPU 0/KVM-4711  [001] .....  1234.500000: ", 1234.5),
    "perf-script": ("qemu-system-x86  2199 [003]    56.146336123:            kvm:", 56.146336123),
    "perf-without-spaces": ("CPU 0/KVM 2199/2204 [003] 56.146336: kvm:", 56.146336),
    "no-time": ("     kvm_pv_test-53132: ", None),
    "version": ("qemu 9.2: ", 9.2),  # cannot be told from a time; no tracer prints it before an event
    "colon-far-away": ("56.146336: something else ", None),
}


@pytest.mark.parametrize(("prefix", "seconds"), TRACERS.values(), ids=TRACERS.keys())
def test_times_of_tracers(prefix: str, seconds: float | None) -> None:
    assert trace_time(prefix) == seconds


def test_a_kernel_has_a_tracer_and_a_log() -> None:
    assert kernel_time("[   56.146336] ") == (56.146336, "boot")
    assert kernel_time("  x-1 [000] d..1.    7.250000: ") == (7.25, "boot")
    assert kernel_time("Dec 12 04:50:01 host kernel: ") is None


PROGRAMS = {
    "qemu-log-backend": ("2199@1612345678.123456:", (1612345678.123456, "wall")),
    "qemu-without-time": ("", None),
    "qemu-marker": ("   CPU 0/KVM-9  [000] .....   12.000001: tracing_mark_write: ", (12.000001, "boot")),
    # 2021-02-03 is day 18661 of 1970; 18661 * 86400 + 45296.5
    "qemu-message": ("2021-02-03T12:34:56.500000Z qemu-system-x86_64: warning: ", (1612355696.5, "wall")),
    "rust-env-logger": ("[2024-12-12T06:43:33Z ERROR vmm::linux::vstate] ", (1733985813.0, "wall")),
    "zone": ("2021-02-03T13:34:56+01:00 ", (1612355696.0, "wall")),
    "no-such-day": ("2021-02-30T13:34:56Z ", None),
    "cloud-hypervisor": (
        "cloud-hypervisor:   0.012345s: <vcpu0> DEBUG:hypervisor/src/kvm/mod.rs:2655 -- ",
        (0.012345, "process"),
    ),
    "milliseconds": ("cloud-hypervisor: 12.5ms: <vcpu0> DEBUG:x.rs:1 -- ", (0.0125, "process")),
    "microseconds": ("cloud-hypervisor: 7µs: <vcpu0> DEBUG:x.rs:1 -- ", (7e-06, "process")),
    "serial-log-of-a-kernel": ("[   56.146336] ", (56.146336, "boot")),
    "nothing": ("qemu-system-x86_64: warning: ", None),
}


@pytest.mark.parametrize(("prefix", "expected"), PROGRAMS.values(), ids=PROGRAMS.keys())
def test_times_of_programs(prefix: str, expected: tuple[float, str] | None) -> None:
    found = program_time(prefix)
    if expected is None:
        assert found is None
    else:
        assert found is not None
        assert found[0] == pytest.approx(expected[0], abs=1e-9)
        assert found[1] == expected[1]


def test_a_time_before_1970() -> None:
    assert iso_time("1969-12-31T23:59:59Z") == -1.0
