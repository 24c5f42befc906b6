"""The numbers, sizes and offsets of the specifications against the headers of installed kernels."""
