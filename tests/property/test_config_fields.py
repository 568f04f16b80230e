"""Each kind of scalar."""
