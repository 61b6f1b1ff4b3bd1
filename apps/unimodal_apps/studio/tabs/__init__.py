"""One module per tab: its inputs, the call it makes of them, and how its result is shown."""
