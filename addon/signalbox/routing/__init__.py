"""Who answers: facts of a request, match, plan, and what each target is sent."""
