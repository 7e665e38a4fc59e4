"""Multi-scale deformable attention: one operator, in PyTorch, C++, Triton and CUDA."""
