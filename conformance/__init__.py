"""Cases, oracle, runner and the line protocol for implementations under test."""
