"""People's own tables: CSV and Parquet files, with a schema that is guessed and shown."""
