"""Independent oracles: plain NumPy float64 forward passes written from the papers, sharing no code with bert4x.

Each oracle takes `weights` (canonical variable path -> array), `config` (dict of TransformerConfig's field names) and
integer inputs, and returns a dict of float64 arrays. They are written to be read next to the paper, not to be fast.
"""
