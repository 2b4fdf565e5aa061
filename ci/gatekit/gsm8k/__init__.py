"""GSM8K over sgl-eval: what is asked, what was answered, what two arms' answers say."""
