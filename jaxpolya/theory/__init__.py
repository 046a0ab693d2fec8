"""Policy gradients on softmax policies small enough to be solved: closed forms beside simulation (`docs/theory.md`).

A policy is a softmax over **approaches**, not over tokens. `python -m jaxpolya.theory DIR` draws every figure of the page.
"""
