"""The reviewers' page. What it is called, in a module that imports nothing."""

PAGE = "index.html"
PAGE_TYPE = "ReviewPage"  # of its artifact
