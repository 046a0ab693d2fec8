"""Texts that are there already, and what models say of them: log-probs, adherence, a reward model, a judge of heuristics."""
