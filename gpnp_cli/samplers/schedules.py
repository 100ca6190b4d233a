"""Noise schedules: plain tuples of decreasing sigma."""


def geometric(sigma_max: float, sigma_min: float, n: int) -> tuple[float, ...]:
    """n levels from sigma_max down to sigma_min by a constant factor (Bouman & Buzzard 2023, algorithm 1)."""
    if not (0 < sigma_min <= sigma_max and n >= 1):
        raise ValueError(f"need 0 < sigma_min <= sigma_max and n >= 1, not {sigma_min}, {sigma_max}, {n}")
    if n == 1:
        return (sigma_min,)
    return (*(sigma_max * (sigma_min / sigma_max) ** (k / (n - 1)) for k in range(n - 1)), sigma_min)
