"""Noise schedules: plain tuples of decreasing sigma."""


def geometric(sigma_max: float, sigma_min: float, n: int) -> tuple[float, ...]:
    """n levels from sigma_max down to sigma_min by a constant factor (Bouman & Buzzard 2023, algorithm 1)."""
    if not (0 < sigma_min <= sigma_max and n >= 1):
        raise ValueError(f"need 0 < sigma_min <= sigma_max and n >= 1, not {sigma_min}, {sigma_max}, {n}")
    if n == 1:
        return (sigma_min,)
    return (*(sigma_max * (sigma_min / sigma_max) ** (k / (n - 1)) for k in range(n - 1)), sigma_min)


def power(sigma_max: float, sigma_min: float, n: int, rho: float = 7.0) -> tuple[float, ...]:
    """n levels whose rho-th roots are evenly spaced (Karras et al. 2022, eq. 5); for large rho nearly `geometric`."""
    top, bottom = (level ** (1 / rho) for level in geometric(sigma_max, sigma_min, 2))
    return (*((top + k / (n - 1) * (bottom - top)) ** rho for k in range(n - 1)), sigma_min)
