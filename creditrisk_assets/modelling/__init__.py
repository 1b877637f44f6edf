"""Training and evaluation of models. Scoring with a finished bundle belongs in `scoring`."""
