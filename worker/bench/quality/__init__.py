"""Quality of masks: bundles on photographs with true masks, in figures and on a sheet to look at."""
