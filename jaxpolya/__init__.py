"""jaxpolya: language models teach themselves several ways to solve a problem, then learn from rewards.

JAX and Flax, after "Mid-Training with Self-Generated Data Improves Reinforcement Learning in Language Models" (arXiv 2605.08472).
"""

__version__ = "0.1.0"
