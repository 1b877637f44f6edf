"""Runs the migrations in the transaction of the caller, `creditrisk_assets.database.prepare`."""

from alembic import context

context.configure(connection=context.config.attributes["connection"])
with context.begin_transaction():
    context.run_migrations()
