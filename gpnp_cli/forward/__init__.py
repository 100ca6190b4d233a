"""Forward operators y = Ax + noise, their adjoints, proximal maps and proximal generators."""
