"""How good a checkpoint is: prompts, questions and edits on held-out scenes, and their scores."""
