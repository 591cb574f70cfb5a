"""Points of an experiment: computed once, kept one by one."""
