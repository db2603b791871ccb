"""The paper's figures and ours: one small function each over the tidy frame.

A figure is one file here with a function `draw(data, **settings) -> Drawing`, and one YAML under conf/figure/
that names it by `_target_` and holds the settings.
"""
