"""`python -m trace_bench.prefetch`; the code is in `trace_bench.sweeps.prefetch`."""

import sys

from trace_bench.sweeps.prefetch import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
