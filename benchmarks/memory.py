"""Peak memory and time per image of the fetch step, few ids against many: `python -m benchmarks.memory [--many N]`."""

import argparse

from benchmarks.clients import Run, run_ours
from benchmarks.load_server import running


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--many", type=int, default=1_000_000)
    parser.add_argument("--in-flight", type=int, default=32)
    arguments = parser.parse_args()
    runs: list[Run] = []
    print(f"{'ids':>9} {'seconds':>8} {'us/image':>9} {'CPU us/image':>13} {'peak MB':>8}")
    # The middle size again at the end: should the machine have grown slower or faster meanwhile, it shows.
    for count in (10_000, 20_000, arguments.many, 20_000):
        with running() as server:
            run = run_ours(server, count, arguments.in_flight)
        runs.append(run)
        wall, cpu = run.seconds / count * 1e6, run.cpu / count * 1e6
        print(f"{count:>9} {run.seconds:>8.1f} {wall:>9.0f} {cpu:>13.0f} {run.peak_mb:>8.0f}", flush=True)
    few, middle, many, after = runs
    print(f"peak memory: {many.peak_mb - few.peak_mb:+.0f} MB")
    for name, of in (("time", lambda run: run.seconds / run.rows), ("CPU time", lambda run: run.cpu / run.rows)):
        print(f"{name} per image: {of(many) / ((of(middle) + of(after)) / 2):.2f} times that of 20,000 ids")


if __name__ == "__main__":
    main()
