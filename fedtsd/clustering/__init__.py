"""Who belongs together: clustering policies and the statistics they rest on."""
