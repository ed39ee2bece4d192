"""How long a table takes and what it costs, by the number of replicas: the tables of docs/scale.md.

    python benchmarks/plan_capacity.py [--rows 1000000] [--rows-per-s 28.4] [--replicas 1 10 100 1000] [--price-per-hour 1]

The rate is of one replica and comes from ``bench_batch.py`` on the machine that is meant; the price is the reader's.
Replicas share nothing while they compute: rows are cut into files, a file is one replica's, and the last one to end
ends the run.
"""

import argparse
import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """Attributes:
    rows_per_s: of one replica.
    rows_per_file: what one replica takes at once; what is lost with it is at most the rest of such a file.
    start_s: from the order of a machine to its first row.
    price_per_hour: of one replica, in any currency.
    bytes_per_row: of input and answer together.
    """

    rows: int
    rows_per_s: float
    rows_per_file: int
    start_s: float
    price_per_hour: float
    bytes_per_row: int


@dataclass(frozen=True, slots=True)
class Plan:
    """``useful`` is the share of the paid time in which rows are computed."""

    replicas: int
    hours: float
    useful: float
    cost_per_million: float
    bytes_per_s: float


def plan(job: Job, replicas: int) -> Plan:
    """What ``replicas`` need for ``job``, all of them paid for until the last one has ended."""
    num_files = math.ceil(job.rows / job.rows_per_file)
    rows_of_busiest = min(math.ceil(num_files / replicas) * job.rows_per_file, job.rows)
    computing_s = rows_of_busiest / job.rows_per_s
    seconds = job.start_s + computing_s
    useful = job.rows / job.rows_per_s / (replicas * seconds)
    cost = replicas * seconds / 3600 * job.price_per_hour
    return Plan(
        replicas=replicas,
        hours=seconds / 3600,
        useful=useful,
        cost_per_million=cost / job.rows * 1e6,
        bytes_per_s=job.rows * job.bytes_per_row / computing_s,
    )


def table(job: Job, replicas: Sequence[int]) -> str:
    """As docs/scale.md has it."""
    lines = ["| replicas | time | useful | cost per million rows | to and from storage |", "|---:|---:|---:|---:|---:|"]
    for number in replicas:
        made = plan(job, number)
        time = f"{made.hours:.1f} h" if made.hours >= 1 else f"{made.hours * 60:.1f} min"
        cost = f"{made.cost_per_million:.2f} P"
        lines.append(f"| {number:,} | {time} | {made.useful:.0%} | {cost} | {made.bytes_per_s / 1e6:.2f} MB/s |")
    return "\n".join(lines)


def flag_parser() -> argparse.ArgumentParser:
    """All flags."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--rows", type=int, default=1_000_000)
    add("--rows-per-s", type=float, default=28.4, help="Of one replica (default: labels, two AVX512 cores).")
    add("--rows-per-file", type=int, default=10_000)
    add("--start-s", type=float, default=60.0, help="From the order of a machine to its first row.")
    add("--price-per-hour", type=float, default=1.0, help="Of one replica; with 1 the costs are in units of it, P.")
    add("--bytes-per-row", type=int, default=400)
    add("--replicas", type=int, nargs="+", default=[1, 10, 100, 1000])
    return parser


def main() -> None:
    flags = vars(flag_parser().parse_args())
    replicas = flags.pop("replicas")
    print(table(Job(**flags), replicas))


if __name__ == "__main__":
    main()
