"""The brokers, side by side: each measure a module, each against bars that are ratios or bounds of one run."""
