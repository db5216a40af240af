"""The lab: experiments (workloads x setups) -> one JSON document per run -> a report, drawn from these files only."""
