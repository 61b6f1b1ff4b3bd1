"""A tour of the four jobs on pictures that come with the package."""
