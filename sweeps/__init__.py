"""Which question is asked: the entry point, what a sweep file means, its plan, records, report."""
