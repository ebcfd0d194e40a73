"""The page of a study, as HTML and as Markdown, and what it is made of."""
