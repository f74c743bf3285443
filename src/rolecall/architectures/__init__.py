"""Architectures of distributed machine learning, one module each, written as roles."""
