"""User study: two turntables side by side, three questions, percentages with intervals."""
