"""What follows from measurements: whether a change may go in, and how a model came to be as fast as it is."""
