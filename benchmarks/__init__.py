"""The room that measures: quality of fused pictures, cost and latency of the networks that make them."""
