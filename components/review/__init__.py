"""The reviewers' page. Its names stand here, because this module imports nothing."""

PAGE = "index.html"
PAGE_TYPE = "ReviewPage"  # type name of the artifact
