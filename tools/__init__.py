"""Scripts of the repository: set-up, generated documents."""
