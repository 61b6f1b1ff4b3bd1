"""The studio: a page in the browser for every job, which shows the diffusion while it happens."""
