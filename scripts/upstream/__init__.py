"""What the series comes to on other upstream versions, and what to do there.

The merge planner knows text and the census knows meaning; here, and only here, their
answers are joined. ``contracts`` says which census belongs to which package, ``facts``
asks both of one tree, ``cells`` makes a column of the facts in the words of
``outcomes``, and ``advice`` a recommendation of the column. ``sources`` and ``clone``
are where trees come from (releases, commits), ``cache`` keeps facts by content,
``firstbad`` searches a history, ``matrix`` and ``page`` show. ``remaking`` carries the
series over to another base.
"""
