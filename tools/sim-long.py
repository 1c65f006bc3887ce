#!/usr/bin/env python3
"""A long run of the simulations of storage: many seeds of each scenario, on all cores, until the time or the seeds are up.

    tools/sim-long.py                                    # every scenario, 10,000 seeds each
    tools/sim-long.py --count 100000 --start 5000000 crashes misdirected_writes
    tools/sim-long.py --minutes 60 --count 1000000       # as many as come in an hour
    tools/sim-long.py --list

A scenario is a test of `sim::storage`, named by any part of its path that is its own. Each seed that fails is printed
with the command that runs it again, and the run goes on with the seeds behind it. Exits with 1 if any failed.
"""

import argparse
import json
import os
import pathlib
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

ROOT = pathlib.Path(__file__).resolve().parent.parent
# Its one seed is fixed.
NOT_SEEDED = {"sim::storage::store::erased_messages_leave_the_disk"}


def build() -> str:
    """Builds the tests and returns the path of the executable."""
    command = ["cargo", "test", "--locked", "--lib", "--no-run", "--message-format=json"]
    output = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True, text=True).stdout
    for line in output.splitlines():
        message = json.loads(line)
        if message.get("executable") and message.get("profile", {}).get("test"):
            return message["executable"]
    sys.exit("cargo names no test executable")


def scenarios(executable: str) -> list[str]:
    listed = subprocess.run([executable, "--list", "sim::storage"], stdout=subprocess.PIPE, check=True, text=True).stdout
    names = [line.removesuffix(": test") for line in listed.splitlines() if line.endswith(": test")]
    return [name for name in names if name not in NOT_SEEDED]


def run(executable: str, scenario: str, seed: int, count: int) -> tuple[bool, str]:
    """Whether those seeds pass, and what the test says."""
    environment = os.environ | {"LEAT_SIM_SEED": str(seed), "LEAT_SIM_SEEDS": str(count), "RUST_BACKTRACE": "0"}
    command = [executable, "--exact", scenario, "--nocapture"]
    done = subprocess.run(
        command, env=environment, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    return done.returncode == 0, done.stdout


def first_failing(executable: str, scenario: str, seed: int, count: int, output: str) -> tuple[int, str] | None:
    """The first seed of a chunk that fails by itself, and how."""
    named = re.search(r"\bseed (\d+)", output)
    candidates = [int(named.group(1))] if named else []
    for candidate in [*candidates, *range(seed, seed + count)]:
        passes, output = run(executable, scenario, candidate, 1)
        if not passes:
            return candidate, output
    return None


def panic_of(output: str) -> str:
    """What the panic says."""
    said = re.search(r"panicked at [^\n]*\n([^\n]*)", output)
    return said.group(1) if said else output.strip()[-1000:]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scenario", nargs="*", help="parts of names; all scenarios without any")
    parser.add_argument("--start", type=int, default=1_000_000, help="the first seed (default: %(default)s)")
    parser.add_argument("--count", type=int, default=10_000, help="seeds of each scenario (default: %(default)s)")
    parser.add_argument("--chunk", type=int, default=100, help="seeds of one process (default: %(default)s)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes (default: one per core)")
    parser.add_argument("--minutes", type=float, help="begin nothing after this time")
    parser.add_argument("--list", action="store_true", help="print the scenarios")
    options = parser.parse_args()

    executable = build()
    known = scenarios(executable)
    if options.list:
        print("\n".join(known))
        return
    chosen = [name for name in known if not options.scenario or any(part in name for part in options.scenario)]
    if not chosen:
        parser.error(f"no scenario is called that: {', '.join(known)}")
    end = time.monotonic() + options.minutes * 60 if options.minutes else None
    ran, failures = dict.fromkeys(chosen, 0), []

    def work(scenario: str, seed: int) -> None:
        last = min(seed + options.chunk, options.start + options.count)
        while seed < last and (end is None or time.monotonic() < end):
            passes, output = run(executable, scenario, seed, last - seed)
            failed = None if passes else first_failing(executable, scenario, seed, last - seed, output)
            if failed is None:
                ran[scenario] += last - seed
                return
            found, said = failed
            ran[scenario] += found + 1 - seed
            failures.append((scenario, found))
            command = f"LEAT_SIM_SEED={found} LEAT_SIM_SEEDS=1 cargo test --lib {scenario}"
            print(f"FAILED {scenario} seed {found}: {panic_of(said)[:1000]}\n  {command}", flush=True)
            seed = found + 1

    with ThreadPoolExecutor(options.jobs) as pool:
        # All scenarios side by side, so that a run that ends early has seen something of each.
        for seed in range(options.start, options.start + options.count, options.chunk):
            for scenario in chosen:
                pool.submit(work, scenario, seed)

    for scenario, count in ran.items():
        failed = sum(name == scenario for name, _ in failures)
        print(f"{scenario}: {count} seeds, {failed} failed")
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
