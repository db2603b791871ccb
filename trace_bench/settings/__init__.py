"""Settings of a command: names, values and files. No torch."""
