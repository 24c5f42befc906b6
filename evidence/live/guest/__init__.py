"""Programs that run inside the booted machine. They use the standard library only and nothing of hvabi."""
