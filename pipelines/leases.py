"""Who may write, where no kernel keeps a lock: claims in an object store that run out unless they are renewed.

A claim is an object below the name of what is held. Whoever has put one and then, in a listing, sees no other that is
alive, holds it; whoever sees another takes his own back. A store lists what was put before, so of two claims at least
one side sees both: two can never hold at once, and no conditional write is needed, which not every store knows.
A claim that was not renewed for `RUNS_OUT_SECONDS` of the store's own clock is dead, and so at once is that of a
process of this machine that has ended. The holder may write for `TRUSTED_SECONDS` after a renewal: what is sent then is
over, or was given up, before anybody else can hold.
"""

import json
import random
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pipelines.errors import StorageError
from pipelines.object_storage import REQUEST_SECONDS, RETRY_SECONDS, ObjectPath

RENEWED_EVERY_SECONDS = 10.0
TRUSTED_SECONDS = 30.0
# A request that was begun within the trusted time has ended when the claim runs out, however often it was sent again.
RUNS_OUT_SECONDS = TRUSTED_SECONDS + RETRY_SECONDS + REQUEST_SECONDS + 15.0
# Of two that come at once, both take their claims back; the older one comes again.
_PAUSE_SECONDS = (0.1, 1.0)
# Who seems to have come later, and still holds then, was first by a clock that differs from ours.
_PATIENCE_SECONDS = 5.0


def _machine() -> str:
    """What is the same for two processes that see each other's numbers; empty where that cannot be told."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""


def _has_ended(facts: dict[str, str]) -> bool:
    """Whether it is sure that the process of a claim is no more: it is known only of this machine."""
    return bool(facts["machine"]) and facts["machine"] == _machine() and _began(facts["pid"]) != facts["pid_began"]


def _began(pid: str) -> str | None:
    """When a process of this machine began, in ticks since the machine did, or None when there is none."""
    try:
        # The name, in brackets, may hold blanks.
        state, *numbers = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    # One that has ended, and was not waited for yet, can still be seen.
    return None if state in "ZX" else numbers[18]


class _Claim:
    """Our claim, from the moment it is put."""

    def __init__(self, place: ObjectPath, facts: dict[str, str]) -> None:
        self.path = place / f"{uuid.uuid4().hex}.json"
        self.facts = facts | {"machine": _machine(), "pid_began": _began(facts["pid"]) or ""}
        self._content = json.dumps(self.facts).encode() + b"\n"
        self._put_at = (0.0, 0.0)
        self._ended = threading.Event()

    def put(self) -> None:
        """Put it, or renew it."""
        began = time.monotonic(), time.time()
        self.path.write_bytes(self._content, held=False)
        self._put_at = began

    @property
    def is_trusted(self) -> bool:
        """Whether what is sent now ends before anybody can take the claim for dead."""
        # A machine that was suspended knows it by one of the two clocks.
        elapsed = max(time.monotonic() - self._put_at[0], time.time() - self._put_at[1])
        return elapsed < TRUSTED_SECONDS

    def renew(self) -> None:
        """Renew it until `end`, or until it is too late: it may have been taken for dead, and must not come back."""
        while not self._ended.wait(RENEWED_EVERY_SECONDS) and self.is_trusted:
            # Tried again as long as there is time.
            with suppress(StorageError):
                self.put()

    def check(self) -> None:
        """Called before each write.

        Raises:
            StorageError: the claim could not be renewed for so long that another run may hold the partition soon.
        """
        if not self.is_trusted:
            raise StorageError(
                f"The hold on {self.path.parent} was lost: the object store could not be reached for "
                f"{TRUSTED_SECONDS:.0f} seconds, or this process was suspended. Nothing more was written; run again."
            )

    def end(self) -> None:
        self._ended.set()


@contextmanager
def claimed(place: ObjectPath, facts: dict[str, str], *, wait: bool) -> Iterator[dict[str, str] | None]:
    """Yield None once `place` is ours until the block ends, or the facts of who holds it.

    `facts` of a holder are at least pid, host and since (a time in ISO 8601). With `wait`, only yields once it is ours.
    """
    claim = _Claim(place, facts)
    other = _claim_alone(claim, wait=wait)
    if other is not None:
        yield other
        return
    renewal = threading.Thread(target=claim.renew, name="lease", daemon=True)
    renewal.start()
    checks = place.bucket.before_write
    checks.append(claim.check)
    try:
        yield None
    finally:
        checks.remove(claim.check)
        claim.end()
        renewal.join()
        # What it was held for is done; a claim that cannot be removed runs out.
        with suppress(StorageError):
            claim.path.unlink(missing_ok=True, held=False)


def _claim_alone(claim: _Claim, *, wait: bool) -> dict[str, str] | None:
    """None when the claim is the only one that is alive; else who was first, and the claim is taken back."""
    patience = time.monotonic() + _PATIENCE_SECONDS
    while True:
        claim.put()
        others = _others(claim)
        if not others:
            return None
        claim.path.unlink(missing_ok=True, held=False)
        first = min(others, key=_since)
        if not wait and (_since(first) < _since(claim.facts) or time.monotonic() > patience):
            return first
        time.sleep(random.uniform(*_PAUSE_SECONDS))  # noqa: S311  (no secret)


def _since(facts: dict[str, str]) -> str:
    return facts["since"]


def _others(claim: _Claim) -> list[dict[str, str]]:
    """The facts of claims that are alive, but ours; dead ones are removed."""
    found = dict(claim.path.parent.tree())
    if claim.path not in found:
        raise StorageError(
            f"The object store does not list {claim.path}, which was just written there, so no run could be sure to be "
            "alone: the lake needs a store whose listings show what was written before."
        )
    # The store's own clock: when it wrote our claim.
    now = found[claim.path].st_mtime
    alive = []
    for path, stat in found.items():
        if path == claim.path:
            continue
        try:
            facts = json.loads(path.read_bytes())
        except FileNotFoundError:
            continue
        if now - stat.st_mtime > RUNS_OUT_SECONDS or _has_ended(facts):
            path.unlink(missing_ok=True, held=False)
        else:
            alive.append(facts)
    return alive
