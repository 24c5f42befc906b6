"""The common model of a conversion and the state that all ABIs share."""
