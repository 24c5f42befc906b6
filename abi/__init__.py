"""From specification files to typed messages and bytes."""
