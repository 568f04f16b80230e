"""How an attempt ended: recorded cases of every provider, and what holds for any answer.

A case is its source (a document, a report, code that handles it), who answered with what status (or
`event` and its type), headers, a body, and after the dashes what it is with the default `failover.on`.
"""
