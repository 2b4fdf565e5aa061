"""sgl-eval's own program, as ``python -m sgl_eval.cli`` runs it."""

import runpy

if __name__ == "__main__":
    runpy.run_module("sgl_eval.cli", run_name="__main__", alter_sys=True)
