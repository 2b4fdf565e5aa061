"""The series on other upstream versions: what still applies, and what to do.

The merge planner reads text and the census reads meaning. Only this package combines
their answers. ``contracts`` maps a package to its census, ``facts`` asks the planner
and the census about one tree, ``cells`` turns facts into a column in the words of
``outcomes``, and ``advice`` turns a column into a recommendation. ``sources`` and
``clone`` provide the trees (releases and commits), ``selection`` chooses the versions,
``cache`` keeps facts by content, ``first_bad`` bisects a history, ``matrix`` and
``page`` print the result. ``rebasing`` rebases the series.
"""
