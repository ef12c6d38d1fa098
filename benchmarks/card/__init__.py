"""What to measure in the first minutes on a CUDA card (docs/card.md); `python -m benchmarks.card` runs it."""
