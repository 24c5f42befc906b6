"""What a message means: one small module per ABI, host and guest role."""
