"""One file a tab: each turns a selection into HTML and does nothing else."""
