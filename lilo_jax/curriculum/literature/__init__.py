"""Rules of other papers, one file each, of the same contract as those in `rules/`."""
