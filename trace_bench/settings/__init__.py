"""Names and values that a command gives. No torch."""
