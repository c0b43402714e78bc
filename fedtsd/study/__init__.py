"""The benchmark: what competes in what, tuned by validation, run in sittings, told in tables.

`plan` says which runs there are, `sitting` runs those that are missing, `choice` picks each
method's values, `standing` reads what was found and `page` writes it down.
"""
