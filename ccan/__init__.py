"""Cross-Correlated Attention Networks for person re-identification."""
