"""Questions to the real libraries, each a module, answered by worker processes: they can crash, and load slowly."""
