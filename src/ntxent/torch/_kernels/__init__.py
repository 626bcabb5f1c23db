"""The one expensive operation on a CUDA GPU, in Triton."""
