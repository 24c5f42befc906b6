"""What a replay works out: one module for each question, each in bounded memory."""
