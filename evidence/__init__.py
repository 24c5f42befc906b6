"""Evidence that the specifications are right: kernel headers and real kernels."""
