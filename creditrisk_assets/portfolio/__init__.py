"""Definition of a customer record: contract, encoding, columns, outcomes, sampling. The arrival of
files belongs in `landing`.
"""
