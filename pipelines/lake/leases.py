"""Who may write, where no kernel keeps a lock: claims in an object store that run out unless they are renewed.

A claim is an object below the name of what is held. Whoever has put one and then, in a listing, sees no other that is
alive, holds it; whoever sees another takes his own back. A store lists what was put before, so of two claims at least
one side sees both: two can never hold at once, and no conditional write is needed, which not every store knows.
A claim is renewed under another name each time, so one that somebody removed, for dead or by hand, does not come back:
its holder looks for it before each write, and writes no more.
A claim that was not renewed for `RUNS_OUT_SECONDS` of the store's own clock is dead, and so at once is that of a
process of this machine that has ended. The holder may write for `TRUSTED_SECONDS` after a renewal: what is sent then is
over, or was given up, before anybody else can hold.
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
from pipelines.lake.object_storage import REQUEST_SECONDS, RETRY_SECONDS, ObjectPath

RENEWED_EVERY_SECONDS = 10.0
TRUSTED_SECONDS = 30.0
# A request that was begun within the trusted time has ended when the claim runs out, however often it was sent again.
RUNS_OUT_SECONDS = TRUSTED_SECONDS + RETRY_SECONDS + REQUEST_SECONDS + 15.0
# Of two that come at once, both take their claims back; the older one comes again.
_PAUSE_SECONDS = (0.1, 1.0)
# Who seems to have come later, and still holds then, was first by a clock that differs from ours.
_PATIENCE_SECONDS = 5.0

_logger = logging.getLogger(__name__)


def _machine() -> str:
    """What is the same for two processes that see each other's numbers; empty where that cannot be told."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""


def _has_ended(facts: dict[str, str]) -> bool:
    """Whether it is sure that the process of a claim is no more: it is known only of this machine."""
    if not facts.keys() >= {"machine", "pid", "pid_began"}:
        return False
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
        self.place = place
        self.path = self._name()
        self.facts = facts | {"machine": _machine(), "pid_began": _began(facts["pid"]) or ""}
        self._content = json.dumps(self.facts).encode() + b"\n"
        self._put_at = (0.0, 0.0)
        self._ended = threading.Event()
        # What is looked for before a write must not be taken away by a renewal at that moment.
        self._naming = threading.Lock()
        # Names that may be in the store.
        self._names: set[ObjectPath] = set()
        self._lost: str | None = None

    def _name(self) -> ObjectPath:
        return self.place / f"{uuid.uuid4().hex}.json"

    def put(self) -> None:
        """Put it under its name."""
        self._put_at = self._write(self.path)

    def _write(self, path: ObjectPath) -> tuple[float, float]:
        began = time.monotonic(), time.time()
        self._names.add(path)
        path.write_bytes(self._content, held=False)
        return began

    @property
    def is_trusted(self) -> bool:
        """Whether what is sent now ends before anybody can take the claim for dead."""
        # A machine that was suspended knows it by one of the two clocks.
        elapsed = max(time.monotonic() - self._put_at[0], time.time() - self._put_at[1])
        return elapsed < TRUSTED_SECONDS

    def keep(self) -> None:
        """Renew it until `end`, or until it is lost: it may have been taken for dead, and must not come back."""
        try:
            while not self._ended.wait(RENEWED_EVERY_SECONDS) and self._lost is None and self.is_trusted:
                # Tried again as long as there is time.
                with suppress(StorageError):
                    self.renew()
        except BaseException as error:  # noqa: BLE001  (whatever it is, nobody renews the claim any more)
            said = str(error) if isinstance(error, PipelineError) else type(error).__name__
            self._lose(f"its claim cannot be renewed ({said.removesuffix('.')})")

    def renew(self) -> None:
        """Put it under a new name, unless the old one is gone."""
        new = self._name()
        put_at = self._write(new)
        if self.path.exists():
            old = self.path
            with self._naming:
                self.path, self._put_at = new, put_at
            self._remove(old)
        else:
            self._lose("its claim was removed")
            self._remove(new)

    def _lose(self, reason: str) -> None:
        self._lost = reason
        _logger.warning("The hold on %s was lost: %s.", self.place, reason)

    def check(self) -> None:
        """Called before each write.

        Raises:
            StorageError: the hold was lost, or another run may have it soon, because the claim could not be renewed.
        """
        with self._naming:
            if self._lost is None and self.is_trusted and not self.path.exists():
                self._lose("its claim was removed")
        reason = self._lost
        if reason is None and not self.is_trusted:
            reason = (
                f"the object store could not be reached for {TRUSTED_SECONDS:.0f} seconds, or this process was "
                "suspended"
            )
        if reason is not None:
            raise StorageError(f"The hold on {self.place} was lost: {reason}. Nothing more was written; run again.")

    def end(self) -> None:
        """Renew it no more."""
        self._ended.set()

    def take_back(self) -> None:
        """Remove it."""
        for path in [*self._names]:
            self._remove(path)

    def _remove(self, path: ObjectPath) -> None:
        path.unlink(missing_ok=True, held=False)
        self._names.discard(path)


@contextmanager
def claimed(place: ObjectPath, facts: dict[str, str], busy: Callable[[dict[str, str]], None]) -> Iterator[None]:
    """Hold `place` until the block ends.

    `facts` of a holder are at least pid, host and since (a time in ISO 8601). `busy` is told those of who else holds
    it, again and again, and raises when it was told often enough.
    """
    claim = _Claim(place, facts)
    _claim_alone(claim, busy)
    renewal = threading.Thread(target=claim.keep, name="lease", daemon=True)
    renewal.start()
    checks = place.bucket.before_write
    checks.append(claim.check)
    try:
        yield
    finally:
        checks.remove(claim.check)
        claim.end()
        renewal.join()
        # What it was held for is done; a claim that cannot be removed runs out.
        with suppress(StorageError):
            claim.take_back()


def _claim_alone(claim: _Claim, busy: Callable[[dict[str, str]], None]) -> None:
    """Put the claim until it is the only one that is alive; while another is, it is taken back."""
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
    """What a claim says; nothing of what is none, which counts as somebody's until it runs out."""
    with suppress(ValueError):
        facts = json.loads(content)
        if isinstance(facts, dict):
            return {name: str(value) for name, value in facts.items()}
    return {}


def _others(claim: _Claim) -> list[dict[str, str]]:
    """The facts of claims that are alive, but ours; dead ones are removed."""
    found = dict(claim.place.tree())
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
            facts = _read(path.read_bytes())
        except FileNotFoundError:
            continue
        if now - stat.st_mtime > RUNS_OUT_SECONDS or _has_ended(facts):
            path.unlink(missing_ok=True, held=False)
        else:
            alive.append(facts)
    return alive
