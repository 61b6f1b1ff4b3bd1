"""One module per job: read the arguments, build the prompt, let the writer write, draw the codes."""
