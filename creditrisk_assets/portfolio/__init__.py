"""What a customer record is: contract, encoding, columns, outcomes, sampling. How files of records
arrive belongs in `landing`.
"""
