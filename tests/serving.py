"""A page served from this process."""

from collections.abc import Iterator

import gradio as gr

from app import page


def serving(demo: gr.Blocks) -> Iterator[str]:
    """Its address, until it is closed: for a fixture to yield from."""
    page.launch(demo, prevent_thread_lock=True, quiet=True)
    yield demo.local_url
    demo.close()
