"""Names and schemas of the data that the pipeline's steps hand to each other."""
