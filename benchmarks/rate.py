"""How close the fetch step comes to a server's rate limit, and to a configured one: `python -m benchmarks.rate`.

The server counts. Three ways of limiting: a bucket that holds a second's worth, a bucket that holds a tenth of that,
and calendar seconds; all answer 429 with `Retry-After: 1`, the client is told nothing.
"""

import argparse
import statistics

from benchmarks.clients import run_ours
from benchmarks.load_server import running


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rate", type=int, default=200)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--runs", type=int, default=3)
    arguments = parser.parse_args()
    rate, ids = arguments.rate, arguments.rate * arguments.seconds
    print(f"found: {ids:,} images, the server allows {rate}/s")
    print(f"{'limit':<22} {'served/s':>9} {'of the allowed':>15} {'refused':>8}")
    for title, burst in (("bucket of 1 s", rate), ("bucket of 0.1 s", rate // 10), ("calendar seconds", 0)):
        reached, shares, refusals = [], [], []
        for _ in range(arguments.runs):
            with running(rate=rate, burst=burst) as server:
                run_ours(server, ids, 32)
                seen = server.stats()
            reached.append(seen["served"] / seen["seconds"])
            shares.append(seen["served"] / (rate * seen["seconds"] + burst))
            refusals.append(seen["refused"] / (seen["served"] + seen["refused"]))
        middle = [statistics.median(values) for values in (reached, shares, refusals)]
        print(f"{title:<22} {middle[0]:>9.1f} {middle[1]:>15.1%} {middle[2]:>8.2%}", flush=True)
    print("told: IMAGE_SNAPSHOTS_RATE_LIMIT")
    print(f"{'limit':>6} {'requests/s':>11} {'off by':>8}")
    for limit in (50, 200, 1000):
        held = []
        for _ in range(arguments.runs):
            with running() as server:
                run_ours(server, limit * 10, 32, rate_limit=limit)
                seen = server.stats()
            held.append((seen["served"] - 1) / seen["seconds"])
        print(f"{limit:>6} {statistics.median(held):>11.2f} {statistics.median(held) / limit - 1:>+8.2%}", flush=True)


if __name__ == "__main__":
    main()
