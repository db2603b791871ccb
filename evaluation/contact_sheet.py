"""`python -m evaluation.contact_sheet`; the code is in `evaluation.figures.contact_sheet`."""

from evaluation.figures.contact_sheet import main

if __name__ == "__main__":
    main()
