"""The command line: a module for each group of commands; jax is imported only by the commands that compute.

app            all commands, in the order in which the help lists them
process        the command as a process: exit codes, interruptions, one sentence for a mistake
screen         what is said where
devices        jax, made ready for commands that compute
runs, evaluation, answers, checkpoints, configuration
"""

from jaxpolya.cli.process import entry, main

__all__ = ["entry", "main"]
