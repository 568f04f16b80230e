"""Ids of tool calls and signatures of thinking: what they carry, and how they come back."""
