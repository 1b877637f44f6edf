"""Reading a bundle and scoring with it, online and in bulk."""
