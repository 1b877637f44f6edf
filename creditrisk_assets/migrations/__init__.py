"""Migrations of the project's own tables in PostgreSQL, by Alembic."""
