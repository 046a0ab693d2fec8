"""Running a program that nobody trusts beside tests that it can't reach: the cage, the wire, and objects that stay on the other side."""
