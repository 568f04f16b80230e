"""Answers in the Messages format, put into the form that was asked for."""
