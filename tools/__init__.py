"""Scripts of the Makefile. They need Python alone: what they install is not there yet."""
