"""`python -m trace_bench.status`; the code is in `trace_bench.sweeps.status`."""

import sys

from trace_bench.sweeps.status import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
