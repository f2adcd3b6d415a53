"""What takes long to make, made once for all processes of a test run: the first makes it, the others wait for it."""

import fcntl
import os
import pickle


def once_per_run(tmp_path_factory, name, make):
    """What `make` returned, given an empty directory; of every process that asks, one makes it.

    Files in the directory are for reading alone. What is returned reaches other processes as a pickle.
    """
    root = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        # Each worker has a directory of its own in that of the run.
        root = root.parent
    made = root / f"{name}.pickle"
    with (root / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.exists():
            # A new one each time: who failed to make it may have left something.
            directory = root / f"{name}-by-{os.getpid()}"
            directory.mkdir()
            made.with_suffix(".part").write_bytes(pickle.dumps(make(directory)))
            made.with_suffix(".part").rename(made)
    return pickle.loads(made.read_bytes())
