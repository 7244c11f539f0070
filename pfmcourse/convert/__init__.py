"""Weights to and from other libraries' models: one file per library, every weight named."""
