"""Makes expensive test data once for all processes of a test run: the first makes it, the others wait for it."""

import fcntl
import os
import pickle


def once_per_run(tmp_path_factory, name, make):
    """What `make` returns, given an empty directory; only one process calls it.

    Files in the directory are read-only. The return value reaches other processes as a pickle.
    """
    root = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        # Each worker has its own directory inside that of the run.
        root = root.parent
    made = root / f"{name}.pickle"
    with (root / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.exists():
            # A new directory each time: a failed attempt may have left files.
            directory = root / f"{name}-by-{os.getpid()}"
            directory.mkdir()
            made.with_suffix(".part").write_bytes(pickle.dumps(make(directory)))
            made.with_suffix(".part").rename(made)
    return pickle.loads(made.read_bytes())
