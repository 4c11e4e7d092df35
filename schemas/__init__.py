"""Names and schemas of the data that the steps of the pipeline exchange."""
