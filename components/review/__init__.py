"""The reviewers' page. Its names are here, because this module is fast to import."""

PAGE = "index.html"
PAGE_TYPE = "ReviewPage"  # type name of the artifact
