"""Whether the series' sites would be live on a machine, and what each of them lacks.

``answers`` defines conditions and their answers. ``machine``, ``producers`` and
``adoption`` check the conditions of the machine, of an AITER and of an SGLang tree;
``page`` prints the report. Nothing is inferred from a version.
"""
