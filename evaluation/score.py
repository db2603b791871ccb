"""`python -m evaluation.score`; the code is in `evaluation.metrics.score`."""

from evaluation.metrics.score import main

if __name__ == "__main__":
    main()
