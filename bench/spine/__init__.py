"""The way of a rate, measured: five measures, each a module, each against bars that are ratios or bounds of one run."""
