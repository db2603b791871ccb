"""`python -m evaluation.collect`; the code is in `evaluation.results.collect`."""

from evaluation.results.collect import main

if __name__ == "__main__":
    main()
