"""Reports of runs: functions of the tables on disk alone, so they are redrawn without torch."""
