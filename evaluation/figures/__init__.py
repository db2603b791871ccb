"""The paper's figures and our own, each drawn by one function from the results frame.

A figure is one file here with a function `draw(data, **settings) -> Drawing`, and one YAML under conf/figure/
with its `_target_` and settings.
"""
