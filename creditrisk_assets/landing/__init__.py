"""How files arrive: listing, reading, validation, duplicates, ingestion. The contract that they are
checked against belongs in `portfolio`.
"""
