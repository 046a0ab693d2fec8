"""A verifier process: `python -m jaxpolya.verify.worker --socket FD --memory-mb N`.

It answers one message at a time on a socket of its own (so that nothing printed can be mistaken for a verdict) and owns nothing: no
deadline, no retry, no files. The parent kills it when an item takes too long. It leaves by itself when the parent closes
the socket, or is gone; Ctrl-C is the parent's affair.

A message is four bytes of length, then JSON. `{"prepare": kind, "policy": …}` imports what a kind needs, so that the time for it is not
an item's; `{"item": …, "answer": …, "deadline": seconds, "policy": …}` is answered with the fields of a `Verdict`. The deadline is the
parent's to enforce; a program in the sandbox gets most of it, so that its lateness is its own and no reason to replace the worker.
`{"together": [message, …]}` is answered with `{"answers": […]}`.

What is a user's comes with the message, as a parcel that says where it lies: `kinds` beside an item, or `{"reward": parcel, "cases": […],
"deadline": seconds}`, which is answered with `{"payments": […]}`. What was changed since it was sent out first is refused.
"""

import argparse
import asyncio
import contextlib
import importlib
import json
import os
import resource
import signal
import socket
import threading
import time
from typing import Any

from jaxpolya.errors import ConfigError
from jaxpolya.records import Verdict
from jaxpolya.verify.code import sandbox
from jaxpolya.verify.judge import Item, Policy, judge, judge_answer
from jaxpolya.verify.kinds import bring, is_own, opened
from jaxpolya.verify.rewards import Case, Form, form_of, pay
from jaxpolya.verify.sandbox.sandbox import SandboxError

IMPORTS = {"math": "math_verify", "reasoning_gym": "reasoning_gym"}
PROGRAM_SHARE = 0.8
"""Of the deadline, for a program in the sandbox."""


def send(connection: socket.socket, message: dict[str, Any]) -> None:
    """Writes one message."""
    data = json.dumps(message).encode()
    connection.sendall(len(data).to_bytes(4, "big") + data)


def receive(connection: socket.socket) -> dict[str, Any] | None:
    """Reads one message; None where the other end is closed."""
    head = _exactly(connection, 4)
    data = _exactly(connection, int.from_bytes(head, "big")) if head else None
    return json.loads(data) if data else None


def _exactly(connection: socket.socket, count: int) -> bytes | None:
    parts = []
    while count:
        part = connection.recv(min(count, 1 << 20))
        if not part:
            return None
        parts.append(part)
        count -= len(part)
    return b"".join(parts)


def main() -> None:
    """Serves until the parent is gone."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--socket", type=int, required=True)
    parser.add_argument("--memory-mb", type=int, required=True)
    arguments = parser.parse_args()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    limit = arguments.memory_mb << 20
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    threading.Thread(target=_leave_with, args=(os.getppid(),), daemon=True).start()
    with socket.socket(fileno=arguments.socket) as connection, asyncio.Runner() as loop:
        while message := receive(connection):
            send(connection, _answer(message, loop))


def _answer(message: dict[str, Any], loop: asyncio.Runner) -> dict[str, Any]:
    if "prepare" in message:
        _prepare(message)
        return {"ready": message["prepare"]}
    if "together" in message:
        return {"answers": [_answer(one, loop) for one in message["together"]]}
    if "reward" in message:
        cases = [Case.from_json(case) for case in message["cases"]]
        try:
            form = _form(message["reward"])
        except ConfigError as error:
            return {"payments": [f"the {error}"] * len(cases)}
        return {"payments": pay(form, cases, message["deadline"], loop)}
    item = Item(**message["item"])
    if is_own(item.kind):
        try:
            _bring(message["kinds"])
        except ConfigError as error:
            return Verdict(verdict="harness_error", detail=str(error)).to_json()
        return judge(item).to_json()
    return judge_answer(item, message["answer"], PROGRAM_SHARE * message["deadline"], Policy.of(message["policy"])).to_json()


def _prepare(message: dict[str, Any]) -> None:
    """Imports what a kind or a reward needs. What of that is a user's and fails says so in every answer."""
    with contextlib.suppress(SandboxError, ConfigError):
        if module := IMPORTS.get(message["prepare"]):
            importlib.import_module(module)
        if message["prepare"] == "code":
            sandbox(Policy.of(message["policy"]).modules)
        _bring(message.get("kinds", {}))
        if "reward" in message:
            _form(message["reward"])


def _bring(kinds: dict[str, dict[str, Any]]) -> None:
    for parcel in kinds.values():
        bring(opened(parcel).reference, "verifier")


def _form(parcel: dict[str, Any]) -> Form:
    plugin = opened(parcel)
    if (known := (plugin.reference, plugin.digest)) not in _forms:
        _forms[known] = form_of(plugin, "reward")
    return _forms[known]


_forms: dict[tuple[str, str], Form] = {}


def _leave_with(parent: int) -> None:
    """Ends a worker whose parent was killed while an item was running: nobody is left to enforce its deadline."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


if __name__ == "__main__":
    main()
