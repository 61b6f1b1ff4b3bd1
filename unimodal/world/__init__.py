"""Scene graphs of a picture-book world: drawings, words and tasks with exact ground truth."""
