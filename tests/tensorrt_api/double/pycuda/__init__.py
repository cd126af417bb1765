"""A test double of PyCUDA: see `driver`."""
