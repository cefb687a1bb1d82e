"""What needs a model that runs: measuring it, and training its new rows. Nothing below this layer loads one."""
