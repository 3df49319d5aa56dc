"""From run folders to tables, fits and figures; needs neither torch nor the code that made the runs."""
