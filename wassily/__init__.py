"""Fine-tune and run Kandinsky 2.2: pictures and captions in, a stock diffusers pipeline out."""

__version__ = "0.1.0"
