"""The method: heuristics, prompts, self-generated responses, adherence and selection."""
