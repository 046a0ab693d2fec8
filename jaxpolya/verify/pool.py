"""The verifier pool: workers in processes of their own, and a parent that outlives whatever they meet.

A response can make a comparator hang, allocate without bound or die, so every worker is a separate process (never a fork: the
parent may hold jax) in its own process group. The parent owns the deadline and enforces it with SIGKILL; SIGALRM within a
worker would need its main thread and could be swallowed by a library. One thread per worker owns that worker alone: it takes an item
from the common queue, sends it, waits until the deadline, and resolves the item's future. Nothing is shared but the queue and
the cache, so there is little to get wrong.

Most answers take less time to judge than to send around, so where many wait a worker is given several in one message, all within one item's
deadline. Where that fails, nothing was the matter with any of them yet: each is judged by itself.

What happens to an item: its answer is extracted in the caller's thread (linear time); an answer that needs no comparator is judged there
too, a known one is answered from the cache, the rest waits for a worker. A kind of the user's own is judged from the response on, for
nobody can promise that its extraction is fast. The deadline runs from the moment an idle worker is given the item; starting a worker and
importing have their own, generous limit. A worker that passes the deadline is killed: `timeout`. A worker that dies takes its item to a
fresh worker once, since a stranger may have killed it; when that one dies too, the response did it: `crash`. Where
no worker can be started, or the whole batch is late, the verdict is `harness_error`, which never becomes a reward.

Rewards that users bring are paid by the same workers. There nothing is blamed on a response: whatever happens is words on why there is no
reward (`rewards.Payment`).
"""

import collections
import contextlib
import dataclasses
import hashlib
import json
import os
import queue
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Hashable, Iterable, Mapping, Sequence
from concurrent.futures import Future, InvalidStateError
from pathlib import Path
from typing import IO, Any, Literal, Protocol, Self

from jaxpolya.errors import InputError
from jaxpolya.records import Verdict, VerdictName
from jaxpolya.verify.judge import DEADLINE, DEFAULT, Item, Policy, answer_of, plain_verdict, problem
from jaxpolya.verify.kinds import is_own, parcels
from jaxpolya.verify.rewards import Case, Form, Payment, late
from jaxpolya.verify.worker import receive, send

START_LIMIT = 120.0
"""Seconds that a worker may take to start and to import what a kind needs."""
START_TRIES = 3
RECYCLE_AFTER = 5000
"""Items after which a worker is replaced, so that no library's leak or cache grows for ever."""
CACHE_SIZE = 100_000
TOGETHER = 16
"""Items of a message, at most."""
QUICK = ("math", "choice")
"""Kinds whose items may share a message: nothing of them is a program's or a user's."""
MAX_WORKERS = 16


Failure = Literal["late", "dead", "no worker"]
"""Why a worker gives no answer."""


class _Job(Protocol):
    """Something that a worker does, and what comes of it where it can't."""

    needs: str
    """What the worker has to have imported: a kind, or a reward's name."""
    message: dict[str, Any]
    seconds: float
    """Until the worker is killed."""
    future: Future[Any]

    def done(self, answer: dict[str, Any]) -> bool:
        """Takes the worker's answer. Whether the worker can go on."""

    def failed(self, how: Failure, why: str, seconds: float) -> None:
        """Takes that there is no answer, after so many seconds."""


class Pool:
    """Verdicts and rewards from processes. A context manager; safe to use from several threads."""

    def __init__(self, workers: int | None = None, deadline: float = DEADLINE, memory_mb: int = 2048, policy: Policy = DEFAULT):
        """A pool that returns at once; its workers start in the background.

        workers: processes, by default one for every core, 16 at most. deadline: seconds for one item. memory_mb: address space
        of one worker in MiB. policy: what verdicts depend on beside the item.
        """
        self.deadline, self.memory_mb, self.policy = deadline, memory_mb, policy
        self._queue: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._cache: collections.OrderedDict[Hashable, Verdict] = collections.OrderedDict()
        self._lock = threading.Lock()
        self._closed = False
        self._hands = [_Hand(self) for _ in range(workers or min(os.cpu_count() or 1, MAX_WORKERS))]

    def submit(self, item: Item) -> Future[Verdict]:
        """A future verdict; it is never an exception. Returns without waiting for a worker.

        Raises `InputError` for an item that no response could answer (no gold answer, a kind that isn't verified), whatever its
        response is, and `RuntimeError` after `close`.
        """
        if trouble := problem(item):
            raise InputError(f"{item.id}: {trouble}")
        future: Future[Verdict] = Future()
        own = is_own(item.kind)
        answer = None if own else answer_of(item)
        plain = None if own else Verdict(verdict="unparseable") if answer is None else plain_verdict(item, answer)
        key = None if plain else _key(item, answer, own)
        with self._lock:
            if self._closed:
                raise RuntimeError("the verifier pool is closed")
            if plain:
                future.set_result(plain)
            elif known := self._cache.get(key):
                self._cache.move_to_end(key)
                future.set_result(known)
            else:
                self._queue.put(_Judging(self, item if own else dataclasses.replace(item, response=""), answer, key, future))
        return future

    def submit_reward(self, form: Form, parcel: Mapping[str, Any], cases: Sequence[Case]) -> Future[list[Payment]]:
        """What a reward will pay each of some responses: all to one question where the reward looks at groups. It is never an exception.

        Args:
          form: of the reward (`rewards.form_of`).
          parcel: what a worker finds the reward by (`kinds.parcel`).
          cases: the responses. One worker sees to them one after another, so a slow reward of single responses is better off alone.

        Raises `RuntimeError` after `close`.
        """
        job = _Paying(self.deadline, form, parcel, cases)
        with self._lock:
            if self._closed:
                raise RuntimeError("the verifier pool is closed")
            self._queue.put(job)
        return job.future

    def verify(self, items: Iterable[Item]) -> list[Verdict]:
        """The verdicts on all items, in their order. Raises as `submit` does."""
        return self.results([self.submit(item) for item in items])

    def results(self, futures: Sequence[Future[Verdict]]) -> list[Verdict]:
        """The verdicts of submitted items, in their order; `harness_error` for those that have none by the batch's deadline.

        That is the time in which a pool at work has judged them all, even if each took its own deadline twice: past it the pool
        itself is stuck (on a file system, say), and whoever waits for it must not be.
        """
        waiting = max(len(futures), self._queue.qsize())
        end = time.monotonic() + START_LIMIT + 2 * self.deadline * -(-waiting // len(self._hands))
        return [self._result(future, end) for future in futures]

    def _result(self, future: Future[Verdict], end: float) -> Verdict:
        try:
            return future.result(max(0.0, end - time.monotonic()))
        except TimeoutError:
            future.cancel()
            return Verdict(verdict="harness_error", detail="the verifier pool gave no verdict by the batch's deadline")

    def close(self) -> None:
        """Kills and reaps every worker. Items that have no verdict yet are cancelled."""
        with self._lock:
            self._closed = True
        for hand in self._hands:
            hand.stop()
            self._queue.put(None)
        for hand in self._hands:
            hand.thread.join()
        with contextlib.suppress(queue.Empty):
            while True:
                if waiting := self._queue.get_nowait():
                    waiting.future.cancel()

    def remember(self, key: Hashable, verdict: Verdict) -> None:
        """Keeps a verdict that depends on nothing but its key; a time-out or a crash may have had other causes."""
        if verdict.verdict not in ("correct", "wrong", "unparseable"):
            return
        with self._lock:
            self._cache[key] = verdict
            if len(self._cache) > CACHE_SIZE:
                self._cache.popitem(last=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Dead(Exception):
    """The worker is gone."""


class _Late(Exception):
    """The worker has not answered in time."""


class _NoWorker(Exception):
    """No worker could be started."""


def _key(item: Item, answer: str | None, own: bool) -> Hashable:
    """What a verdict rests on. Raises `InputError` where that isn't JSON and can't be sent to a worker."""
    texts = item.kind, item.question, item.answer, item.extraction, tuple(item.choices or ()), item.second, answer
    if item.tests is None and item.entry is None and not own:
        return texts
    rests_on = [*texts, item.tests, item.entry, *([item.asked, item.response] if own else [])]
    try:
        return hashlib.blake2b(json.dumps(rests_on, sort_keys=True).encode(), digest_size=16).digest()
    except (TypeError, ValueError) as error:
        raise InputError(f"{item.id}: the entry or the tests are not JSON ({error})") from None


_ITEM_FIELDS = [field.name for field in dataclasses.fields(Item)]


class _Judging:
    """The verdict on one item."""

    def __init__(self, pool: Pool, item: Item, answer: str | None, key: Hashable, future: Future[Verdict]):
        self.pool, self.item, self.answer, self.key, self.future = pool, item, answer, key, future
        self.needs, self.seconds = item.kind, pool.deadline
        fields = {name: value for name in _ITEM_FIELDS if (value := getattr(item, name)) is not None}
        self.message = {"item": fields, "answer": answer, "deadline": pool.deadline, "policy": pool.policy.to_json()}
        if is_own(item.kind):
            self.message["kinds"] = parcels([item.kind])

    def done(self, answer: dict[str, Any]) -> bool:
        verdict = Verdict.from_json(answer)
        self.resolve(verdict)
        return verdict.verdict != "crash" or self.item.kind == "code"  # there it was the program in its sandbox

    def failed(self, how: Failure, why: str, seconds: float) -> None:
        names: dict[Failure, VerdictName] = {"late": "timeout", "dead": "crash", "no worker": "harness_error"}
        detail = None if how == "late" else why
        spent = 0.0 if how == "no worker" else seconds
        self.resolve(Verdict(verdict=names[how], extracted=self.answer, seconds=spent, detail=detail))

    def resolve(self, verdict: Verdict) -> None:
        self.pool.remember(self.key, verdict)
        with contextlib.suppress(InvalidStateError):
            self.future.set_result(verdict)


class _Paying:
    """The rewards of some responses."""

    def __init__(self, deadline: float, form: Form, parcel: Mapping[str, Any], cases: Sequence[Case]):
        self.form, self.deadline, self.count = form, deadline, len(cases)
        self.needs = form.name
        # What is awaited is broken off by the worker itself; where that fails too, the worker is killed.
        self.seconds = deadline * (len(cases) if form.group or not form.awaited else 1) * (2 if form.awaited else 1)
        self.message = {"reward": parcel, "cases": [case.to_json() for case in cases], "deadline": deadline}
        self.future: Future[list[Payment]] = Future()

    def done(self, answer: dict[str, Any]) -> bool:
        self.resolve(answer["payments"])
        return True

    def failed(self, how: Failure, why: str, seconds: float) -> None:
        words = late(self.form.name, self.seconds) if how == "late" else f"the reward {self.form.name}: {why}"
        self.resolve([words] * self.count)

    def resolve(self, payments: list[Payment]) -> None:
        with contextlib.suppress(InvalidStateError):
            self.future.set_result(payments)


class _Hand:
    """One thread and the one worker that it owns."""

    def __init__(self, pool: Pool):
        self.pool = pool
        self.process: _Process | None = None
        self.stopping = False
        self.lock = threading.Lock()
        self.thread = threading.Thread(target=self.run, name="verifier", daemon=True)
        self.thread.start()

    def run(self) -> None:
        try:
            with contextlib.suppress(_NoWorker):
                self.ready("math", {})  # warm before the first item
            while not self.stopping and (job := self.pool._queue.get()) is not None:
                jobs, last = self.with_those_behind(job)
                jobs = [job for job in jobs if job.future.set_running_or_notify_cancel()]
                quick = [job for job in jobs if job.needs in QUICK]
                if len(quick) > 1 and self.work_together(quick):
                    jobs = [job for job in jobs if job.needs not in QUICK]
                for job in jobs:
                    try:
                        self.work(job)
                    except Exception as error:
                        self.drop()
                        job.failed("no worker", f"{type(error).__name__}: {error}"[:500], 0.0)
                if last:
                    break
        finally:
            self.drop()

    def with_those_behind(self, job: _Job) -> tuple[list[_Job], bool]:
        """(the job and this hand's share of the like ones that wait behind it, whether the pool was closed meanwhile)."""
        jobs, share = [job], self.pool._queue.qsize() // len(self.pool._hands)
        while job.needs in QUICK and len(jobs) < min(share, TOGETHER):
            try:
                following = self.pool._queue.get_nowait()
            except queue.Empty:
                break
            if following is None:
                return jobs, True
            jobs.append(following)
            job = following
        return jobs, False

    def work_together(self, jobs: Sequence[_Job]) -> bool:
        """Has a worker do several jobs of `QUICK` kinds within the time of one. Whether it did; if not, no job has heard of it."""
        try:
            for job in jobs:
                process = self.ready(job.needs, {})
            answers = process.ask({"together": [job.message for job in jobs]}, jobs[0].seconds)["answers"]
        except Exception:  # whatever it was, it will show again where it belongs to one of them
            self.drop()
            return False
        process.items += len(jobs)
        unharmed = [job.done(answer) for job, answer in zip(jobs, answers, strict=True)]
        if not all(unharmed) or process.items >= RECYCLE_AFTER:
            self.drop()
        return True

    def work(self, job: _Job) -> None:
        """Has a worker do a job, and tells it what came of it."""
        start = time.monotonic()
        for _ in range(2):
            start = time.monotonic()
            try:
                process = self.ready(job.needs, job.message)
                start = time.monotonic()
                answer = process.ask(job.message, job.seconds)
            except _NoWorker as error:
                return job.failed("no worker", f"no verifier process: {error}", 0.0)
            except _Late:
                self.drop()
                return job.failed("late", "", time.monotonic() - start)
            except _Dead:
                self.drop()
                if self.stopping:
                    break
                continue
            process.items += 1
            if not job.done(answer) or process.items >= RECYCLE_AFTER:
                self.drop()
            return None
        if self.stopping:
            return job.failed("no worker", "the verifier pool was closed", 0.0)
        return job.failed("dead", "the verifier process died twice", time.monotonic() - start)

    def ready(self, needs: str, message: Mapping[str, Any]) -> "_Process":
        """A living worker that has imported what a kind or a reward needs; `message` brings what is a user's. Raises `_NoWorker`."""
        trouble = ""
        for _ in range(START_TRIES):
            process = self.process
            try:
                if process is None:
                    with self.lock:
                        if self.stopping:
                            raise _NoWorker("the pool is closing")
                        process = self.process = _Process(self.pool.memory_mb)
                if needs not in process.prepared:
                    brings = {name: message[name] for name in ("kinds", "reward") if name in message}
                    process.ask({"prepare": needs, "policy": self.pool.policy.to_json(), **brings}, START_LIMIT)
                    process.prepared.add(needs)
                return process
            except (_Dead, _Late):
                trouble = process.complaint() if process else ""
                self.drop()
            except OSError as error:
                trouble = str(error)
        raise _NoWorker(trouble)

    def drop(self) -> None:
        """Kills and reaps the worker, if there is one."""
        with self.lock:
            process, self.process = self.process, None
        if process:
            process.kill()
            process.reap()

    def stop(self) -> None:
        """Makes the thread end soon, from another thread; the thread itself reaps the worker."""
        with self.lock:
            self.stopping = True
            if self.process:
                self.process.kill()


class _Process:
    """A worker process and the socket to it."""

    def __init__(self, memory_mb: int):
        self.prepared: set[str] = set()
        self.items = 0
        self.socket, theirs = socket.socketpair()
        self.stderr: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115
        package_root = str(Path(__file__).resolve().parents[2])
        paths = [package_root, *filter(None, [os.environ.get("PYTHONPATH")])]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
        environment["JAX_PLATFORMS"] = "cpu"  # a user's file may import jax, and the accelerator is the trainer's
        command = [sys.executable, "-P", "-m", "jaxpolya.verify.worker", "--socket", str(theirs.fileno()), "--memory-mb", str(memory_mb)]
        try:
            self.child = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=self.stderr,
                pass_fds=[theirs.fileno()], start_new_session=True, env=environment,
            )  # fmt: skip
        except OSError:
            self.socket.close()
            self.stderr.close()
            raise
        finally:
            theirs.close()

    def ask(self, message: dict[str, Any], limit: float) -> dict[str, Any]:
        """The answer to a message. Raises `_Late` after `limit` seconds, `_Dead` where the worker is gone."""
        try:
            self.socket.settimeout(limit)
            send(self.socket, message)
            answer = receive(self.socket)
        except TimeoutError:
            raise _Late from None
        except (OSError, ValueError):  # closed, or not a message
            raise _Dead from None
        if answer is None:
            raise _Dead
        return answer

    def kill(self) -> None:
        """Kills the worker's whole process group."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.child.pid, signal.SIGKILL)

    def reap(self) -> None:
        """Waits for the killed worker and closes what belongs to it."""
        self.child.wait()
        self.socket.close()
        self.stderr.close()

    def complaint(self) -> str:
        """The last line that the worker wrote before it failed, and how it ended."""
        self.kill()
        code = self.child.wait()
        self.stderr.seek(0)
        lines = self.stderr.read()[-2000:].decode(errors="replace").strip().splitlines()
        return f"exit {code}: {lines[-1] if lines else 'no message'}"
