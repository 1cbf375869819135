"""The conductor: where trials are trained, who listens, what is selected, and the dry run."""
