"""The records of episodes, and the deliveries of messages to several receivers."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Create the tables; the outbox fills them from those that are there."""
    op.create_table(
        "deliveries",
        sa.Column("message", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("receiver", sa.Text, primary_key=True),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("due", sa.Float, nullable=False),
        sa.Column("problem", sa.Text),
        sa.Column("digest", sa.Text),
    )
    op.create_table(
        "episode_records",
        sa.Column("number", sa.BigInteger, primary_key=True),
        sa.Column("identity", sa.Text, unique=True, nullable=False),
        sa.Column("is_open", sa.Integer, nullable=False),
        sa.Column("document", sa.Text, nullable=False),
    )
