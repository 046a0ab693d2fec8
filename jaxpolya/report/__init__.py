"""Tables, plots and pages that a person reads at the end of a run."""
