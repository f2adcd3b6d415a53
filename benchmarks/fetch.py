"""Time the fetch step and its peers, on one server, in turns: `python -m benchmarks.fetch`.

Prints medians. `ideal` is ids x latency / in flight: what no client can beat. Times begin with the first request (the
token) and end with the last byte of Parquet on disk; imports are not counted.
"""

import argparse
import statistics
import sys
from collections import defaultdict
from dataclasses import dataclass

from benchmarks.clients import PEERS, Run, run_ours, run_peer
from benchmarks.load_server import running


@dataclass(frozen=True, slots=True)
class Case:
    """A server and how many requests may be in flight."""

    title: str
    latency_ms: float
    in_flight: int
    tls: bool = False


CASES = {
    "latency": Case("20 ms latency, 128 in flight", 20, 128),
    "none": Case("no latency, 32 in flight", 0, 32),
    "tls": Case("no latency, 32 in flight, TLS", 0, 32, tls=True),
    "tls-latency": Case("20 ms latency, 128 in flight, TLS", 20, 128, tls=True),
}


def measure(case: Case, clients: list[str], ids: int, runs: int) -> dict[str, list[Run]]:
    """Run each client in turn, `runs` times, so that other load on the machine affects all of them."""
    found: dict[str, list[Run]] = defaultdict(list)
    for _ in range(runs):
        for client in clients:
            with running(case.latency_ms, tls=case.tls) as server:
                if client == "ours":
                    run = run_ours(server, ids, case.in_flight)
                else:
                    run = run_peer(client, server, ids, case.in_flight)
            if run.rows != ids:
                raise SystemExit(f"{client} has {run.rows} rows instead of {ids}.")
            print(f"{case.title}: {client} {run.seconds:.1f} s, {run.cpu:.1f} CPU s", file=sys.stderr)
            found[client].append(run)
    return found


def show(case: Case, found: dict[str, list[Run]], ids: int) -> None:
    ours = statistics.median(run.seconds for run in found["ours"])
    print(f"\n{ids:,} images, {case.title}")
    print(f"{'client':<8} {'seconds':>8} {'images/s':>9} {'CPU s':>7} {'peak MB':>8} {'times ours':>11}   all runs, s")
    for client, runs in found.items():
        seconds = statistics.median(run.seconds for run in runs)
        cpu = statistics.median(run.cpu for run in runs)
        peak = statistics.median(run.peak_mb for run in runs)
        each = " ".join(f"{run.seconds:.1f}" for run in runs)
        ratio = seconds / ours
        print(f"{client:<8} {seconds:>8.2f} {ids / seconds:>9.0f} {cpu:>7.1f} {peak:>8.0f} {ratio:>11.2f}   {each}")
    if case.latency_ms:
        ideal = ids * case.latency_ms / 1000 / case.in_flight
        print(f"{'ideal':<8} {ideal:>8.2f} {ids / ideal:>9.0f} {'':>7} {'':>8} {ideal / ours:>11.2f}", end="")
        print(f"   ours takes {ours / ideal:.2f} times the ideal", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ids", type=int, default=20_000)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=["latency", "none", "tls"])
    parser.add_argument("--peers", nargs="*", choices=PEERS, default=list(PEERS))
    arguments = parser.parse_args()
    for name in arguments.cases:
        case = CASES[name]
        show(case, measure(case, ["ours", *arguments.peers], arguments.ids, arguments.runs), arguments.ids)


if __name__ == "__main__":
    main()
