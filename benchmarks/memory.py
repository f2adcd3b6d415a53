"""Peak memory and time per image of the fetch step, for few and for many ids: `python -m benchmarks.memory [--many N]`.

With `--plot FILE.svg` the resident memory over time of fetching the many, and of deriving their tables, is drawn. With
`--object-store` the lake is in an S3 server on this machine.
"""

import argparse
from contextlib import nullcontext
from pathlib import Path

from benchmarks.clients import Run, our_steps
from benchmarks.load_server import running
from benchmarks.object_store import object_store


def plot(path: Path, count: int, runs: dict[str, Run]) -> None:
    """Draw the resident memory of each run, by its process's age."""
    import matplotlib as mpl  # noqa: PLC0415  (only who asks for a plot needs it)

    mpl.use("svg")
    # Text stays text, and the same samples give the same file.
    mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "memory"})
    from matplotlib import pyplot as plt  # noqa: PLC0415  (after its output was chosen)

    figure, axes = plt.subplots(figsize=(8, 4), layout="constrained")
    for name, run in runs.items():
        axes.plot(*zip(*run.memory, strict=True), label=f"{name} (peak {run.peak_mb:.0f} MB)")
    axes.set(title=f"Resident memory, {count:,} images", xlabel="time since the start of the process, s")
    axes.set(ylabel="resident memory, MB", xlim=(0, None), ylim=(0, None))
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--many", type=int, default=1_000_000)
    parser.add_argument("--in-flight", type=int, default=32)
    parser.add_argument("--object-store", action="store_true")
    parser.add_argument("--plot", type=Path, metavar="FILE.svg")
    arguments = parser.parse_args()
    runs: list[Run] = []
    print(f"{'ids':>9} {'seconds':>8} {'us/image':>9} {'CPU us/image':>13} {'peak MB':>8}")
    # Repeat the middle size at the end, to see whether the machine has become slower or faster.
    for count in (10_000, 20_000, arguments.many, 20_000):
        with running() as server, object_store() if arguments.object_store else nullcontext() as storage:
            if count == arguments.many and arguments.plot:
                with our_steps(server, count, arguments.in_flight, storage=storage) as run_step:
                    run = run_step("fetch")
                    drawn = {"fetch": run, "derive": run_step("derive")}
                plot(arguments.plot, count, drawn)
            else:
                with our_steps(server, count, arguments.in_flight, storage=storage) as run_step:
                    run = run_step("fetch")
        runs.append(run)
        wall, cpu = run.seconds / count * 1e6, run.cpu / count * 1e6
        print(f"{count:>9} {run.seconds:>8.1f} {wall:>9.0f} {cpu:>13.0f} {run.peak_mb:>8.0f}", flush=True)
    few, middle, many, after = runs
    print(f"peak memory: {many.peak_mb - few.peak_mb:+.0f} MB")
    for name, of in (("time", lambda run: run.seconds / run.rows), ("CPU time", lambda run: run.cpu / run.rows)):
        print(f"{name} per image: {of(many) / ((of(middle) + of(after)) / 2):.2f} times that of 20,000 ids")


if __name__ == "__main__":
    main()
