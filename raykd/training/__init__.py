"""One student's training; knows no Ray."""
