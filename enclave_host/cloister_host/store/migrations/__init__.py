"""SQL migrations, applied once each in the order of their names.

A file is never edited after a release; a later one changes what it made. `{bytes}` and `{text}` stand
for the database's own types. Every protected table has the columns of `store.rows.Table`.
"""
