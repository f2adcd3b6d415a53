"""Locks in an object store, where no kernel keeps them: claims that run out unless they are renewed.

A claim is an object below the name of what is held. A process that has put one and then, in a listing, sees no other
that is alive, holds the name; one that sees another takes its own back. A store lists what was put before, so of two
claims at least one side sees both: two can never hold at once, and no conditional write is needed, which some stores
lack.
A claim is renewed under another name each time, so one that was removed, for dead or by hand, does not come back: its
holder looks for it before each write, and writes no more.
A claim is dead when it was not renewed for `RUNS_OUT_SECONDS` of the store's own clock, or at once when it is of a
process of this machine that has ended. The holder may write for `TRUSTED_SECONDS` after a renewal: a request that was
sent by then has ended, or was given up, before anybody else can hold.
"""

import json
import logging
import random
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pipelines.errors import PipelineError, StorageError
from pipelines.lake.buckets import REQUEST_SECONDS, RETRY_SECONDS, Bucket

RENEWED_EVERY_SECONDS = 10.0
TRUSTED_SECONDS = 30.0
# When the claim runs out, a request that began within the trusted time has ended, however often it was sent again.
RUNS_OUT_SECONDS = TRUSTED_SECONDS + RETRY_SECONDS + REQUEST_SECONDS + 15.0
# Two that come at once both take their claims back; the older one comes again.
_PAUSE_SECONDS = (0.1, 1.0)
# A claim that appears later but persists for so long comes from a host with clock skew, so yield to it.
_PATIENCE_SECONDS = 5.0

_logger = logging.getLogger(__name__)


def _machine() -> str:
    """A text that two processes have in common when they see each other's ids; empty where that cannot be told."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""


def _has_ended(facts: dict[str, str]) -> bool:
    """Whether the process of a claim has ended for certain, which is known only of this machine."""
    if not facts.keys() >= {"machine", "pid", "pid_began"}:
        return False
    return bool(facts["machine"]) and facts["machine"] == _machine() and _began(facts["pid"]) != facts["pid_began"]


def _began(pid: str) -> str | None:
    """When a process of this machine began, in ticks since the machine did, or None when there is none."""
    try:
        # The name of the program, in brackets, may hold blanks.
        state, *numbers = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    # A process that has ended stays visible until its parent has waited for it.
    return None if state in "ZX" else numbers[18]


class _Claim:
    """Our claim, from the moment it is put."""

    def __init__(self, bucket: Bucket, place: str, facts: dict[str, str]) -> None:
        self.bucket = bucket
        self.place = place
        self.key = self._new_key()
        self.facts = facts | {"machine": _machine(), "pid_began": _began(facts["pid"]) or ""}
        self._content = json.dumps(self.facts).encode() + b"\n"
        self._put_at = (0.0, 0.0)
        self._ended = threading.Event()
        # A renewal must not remove the object while `check` looks for it.
        self._naming = threading.Lock()
        # Keys that may be in the store.
        self._keys: set[str] = set()
        self._lost: str | None = None

    def _new_key(self) -> str:
        return f"{self.place}/{uuid.uuid4().hex}.json"

    def put(self) -> None:
        """Put it under its key."""
        self._put_at = self._write(self.key)

    def _write(self, key: str) -> tuple[float, float]:
        began = time.monotonic(), time.time()
        self._keys.add(key)
        self.bucket.put(key, self._content)
        return began

    @property
    def is_trusted(self) -> bool:
        """Whether what is sent now ends before anybody can take the claim for dead."""
        # On a machine that was suspended, one of the two clocks shows it.
        elapsed = max(time.monotonic() - self._put_at[0], time.time() - self._put_at[1])
        return elapsed < TRUSTED_SECONDS

    def keep(self) -> None:
        """Renew it until `end`, or until it is lost: one that was taken for dead must not come back."""
        try:
            while not self._ended.wait(RENEWED_EVERY_SECONDS) and self._lost is None and self.is_trusted:
                # It is tried again as long as there is time.
                with suppress(StorageError):
                    self.renew()
        except BaseException as error:  # noqa: BLE001  (after any error nobody renews the claim)
            said = str(error) if isinstance(error, PipelineError) else type(error).__name__
            self._lose(f"its claim cannot be renewed ({said.removesuffix('.')})")

    def renew(self) -> None:
        """Put it under a new key, unless the old one is gone."""
        new = self._new_key()
        put_at = self._write(new)
        if self.bucket.is_there(self.key):
            old = self.key
            with self._naming:
                self.key, self._put_at = new, put_at
            self._remove(old)
        else:
            self._lose("its claim was removed")
            self._remove(new)

    def _lose(self, reason: str) -> None:
        self._lost = reason
        _logger.warning("The hold on %s was lost: %s.", self.bucket.url(self.place), reason)

    def check(self) -> None:
        """Called before each write.

        Raises:
            StorageError: the hold was lost, or another run may have it soon, because the claim could not be renewed.
        """
        with self._naming:
            if self._lost is None and self.is_trusted and not self.bucket.is_there(self.key):
                self._lose("its claim was removed")
        reason = self._lost
        if reason is None and not self.is_trusted:
            reason = (
                f"the object store could not be reached for {TRUSTED_SECONDS:.0f} seconds, or this process was "
                "suspended"
            )
        if reason is not None:
            raise StorageError(
                f"The hold on {self.bucket.url(self.place)} was lost: {reason}. Nothing more was written; run again."
            )

    def end(self) -> None:
        """Renew it no more."""
        self._ended.set()

    def take_back(self) -> None:
        """Remove it."""
        for key in [*self._keys]:
            self._remove(key)

    def _remove(self, key: str) -> None:
        self.bucket.delete([key], key)
        self._keys.discard(key)


@contextmanager
def claimed(
    bucket: Bucket, place: str, facts: dict[str, str], busy: Callable[[dict[str, str]], None]
) -> Iterator[None]:
    """Hold the key `place` until the block ends; `facts` and `busy` as in `LakePath.held`."""
    claim = _Claim(bucket, place, facts)
    _claim_alone(claim, busy)
    renewal = threading.Thread(target=claim.keep, name="lease", daemon=True)
    renewal.start()
    bucket.before_write.append(claim.check)
    try:
        yield
    finally:
        bucket.before_write.remove(claim.check)
        claim.end()
        renewal.join()
        # The work is done; a claim that cannot be removed runs out.
        with suppress(StorageError):
            claim.take_back()


def _claim_alone(claim: _Claim, busy: Callable[[dict[str, str]], None]) -> None:
    """Put the claim until it is the only one that is alive; take it back while another is."""
    patience = time.monotonic() + _PATIENCE_SECONDS
    while True:
        claim.put()
        others = _others(claim)
        if not others:
            return
        claim.take_back()
        first = min(others, key=_since)
        if _since(first) < _since(claim.facts) or time.monotonic() > patience:
            busy(first)
        time.sleep(random.uniform(*_PAUSE_SECONDS))  # noqa: S311  (no secret)


def _since(facts: dict[str, str]) -> str:
    return facts.get("since", "")


def _read(content: bytes) -> dict[str, str]:
    """The facts in a claim; none in any other object, which counts as somebody's claim until it runs out."""
    with suppress(ValueError):
        facts = json.loads(content)
        if isinstance(facts, dict):
            return {name: str(value) for name, value in facts.items()}
    return {}


def _others(claim: _Claim) -> list[dict[str, str]]:
    """The facts of claims that are alive, except ours; dead ones are removed."""
    bucket = claim.bucket
    found = dict(bucket.below(claim.place))
    if claim.key not in found:
        raise StorageError(
            f"The object store does not list {bucket.url(claim.key)}, which was just written there, so no run could be "
            "sure to be alone: the lake needs a store whose listings show what was written before."
        )
    # The time by the store's own clock: when it wrote our claim.
    now = found[claim.key].st_mtime
    alive = []
    for key, stat in found.items():
        if key == claim.key:
            continue
        try:
            facts = _read(bucket.get(key))
        except FileNotFoundError:
            continue
        if now - stat.st_mtime > RUNS_OUT_SECONDS or _has_ended(facts):
            bucket.delete([key], key)
        else:
            alive.append(facts)
    return alive
