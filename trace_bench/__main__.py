"""`python -m trace_bench`: make assets. `--help` lists every key."""

import sys

from trace_bench.sweeps.sweep import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
