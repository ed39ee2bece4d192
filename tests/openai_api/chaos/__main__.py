"""A long run by hand: ``python -m tests.openai_api.chaos --minutes 10 --workers 60 [--padded]``.

Prints what was answered, the process before and after, and every problem. Exit status 1 if there is
one.
"""

import argparse
import asyncio
import sys
import tempfile
from pathlib import Path

from tests.openai_api.chaos.run import chaos, long_plan
from tests.openai_api.chaos.servers import padded_model, real_model, serving


def main() -> int:
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--minutes", type=float, default=10)
    flags.add_argument("--workers", type=int, default=60)
    flags.add_argument("--seed", type=int, default=0)
    flags.add_argument("--padded", action="store_true", help="Attack a small checkpoint with a padded vocabulary.")
    args = flags.parse_args()
    plan = long_plan(minutes=args.minutes, num_workers=args.workers, seed=args.seed)
    with tempfile.TemporaryDirectory() as folder:
        model = padded_model(Path(folder)) if args.padded else real_model(kv_cache_mib=128, max_model_len=8_192)
        with serving(model, Path(folder, "server.log")) as target:
            verdict = asyncio.run(chaos(target, plan))
            print(verdict)
    return 1 if verdict.problems else 0


if __name__ == "__main__":
    sys.exit(main())
