"""Decides who answers: facts of a request, rules, plan, attempts, and the request to each target."""
