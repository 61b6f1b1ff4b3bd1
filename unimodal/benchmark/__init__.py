"""What decoding costs: cases as data, run on a checkpoint or on random weights, and tables made from the results."""
