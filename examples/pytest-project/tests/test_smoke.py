"""A first test without the plugin. MY_VMM is the path of the implementation, ./my-vmm where it is not set."""

import json
import os
import subprocess


def test_says_hello_and_ends() -> None:
    """The implementation says what it has and ends well."""
    commands = [{"id": 1, "cmd": "hello", "min": 1, "max": 1, "runner": "smoke"}, {"id": 2, "cmd": "stop"}]
    lines = "".join(f"@hvabi {json.dumps(command)}\n" for command in commands)
    program = os.environ.get("MY_VMM", "./my-vmm")
    done = subprocess.run([program], input=lines, capture_output=True, text=True, timeout=10, check=True)
    # Whatever has no prefix is log text.
    answers = [json.loads(line[7:]) for line in done.stdout.splitlines() if line.startswith("@hvabi ")]
    assert [answer["id"] for answer in answers] == [1, 2]
    assert answers[0]["ok"]["protocol"] == 1
    assert answers[0]["ok"]["abis"]
