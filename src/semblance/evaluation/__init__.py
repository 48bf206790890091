"""Room: evaluation. Scores of an embedding against labels, and what differences between scores are worth."""
