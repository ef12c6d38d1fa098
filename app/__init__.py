"""The page: Gradio around `hieramp`'s public names."""
