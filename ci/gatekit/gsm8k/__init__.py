"""GSM8K through sgl-eval: questions, answers, and the comparison of two arms."""
