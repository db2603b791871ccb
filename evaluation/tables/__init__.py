"""Tables in Markdown, CSV and LaTeX: the paper's tables next to our results, and our own tables."""
