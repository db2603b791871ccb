"""Tables in Markdown, CSV and LaTeX: the paper's with ours beside them, and our own."""
