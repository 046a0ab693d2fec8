"""Whether a mathematical answer is the gold answer, and whether it has been worked out: `compare`, and what it reads answers with."""
