"""Tables, plots and pages that a person reads at the end of a run.

Everything here reads one value, the run's `jaxpolya.results.Results`, and knows nothing of models or devices. What a run did not do
is None or empty there, and is left out of the report.
"""
