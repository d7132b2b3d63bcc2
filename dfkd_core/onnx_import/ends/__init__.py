"""The two ends of a graph: what it takes, made from images (N, C, H, W), and what it returns, turned into logits."""
