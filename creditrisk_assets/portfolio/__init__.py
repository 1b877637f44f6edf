"""What a customer record is: contract, validation, features, landing files, simulator."""
