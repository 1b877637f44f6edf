"""The bucket of the S3 server that tests land in."""

from moto.core.models import DEFAULT_ACCOUNT_ID
from moto.s3.models import s3_backends

BUCKET = "bank"


def put_key(key: str, content: bytes = b"id,amount,code\n9,10,1\n") -> None:
    """An object under any key, also under one that HTTP clients would tidy up on the way."""
    s3_backends[DEFAULT_ACCOUNT_ID]["aws"].put_object(BUCKET, f"landing/production/{key}", content)
