"""The windows of a plan: recorded header sets, what is kept of them, and when one will be full.

A case is its source, the headers, and after the dashes what they tell.
"""
