"""What was asked, answered and judged, and by whom: interactions, feedback, and the person behind a pseudonym.

May import `registry` and `kalimtak.core`. Front door: `interactions.services` (`interactions_record`,
`feedback_give`, `review_note`).
"""
