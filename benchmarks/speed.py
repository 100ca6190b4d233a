"""Time of one denoiser call, all in one run on one machine.

    python benchmarks/speed.py --denoisers default bm3d --out runs/speed.md

On the CPU: the median time of a call on a 256x256 colour picture, and its ratio to BM3D's. `drunet-shape` is the DRUNet
architecture with random weights, which costs what the trained one costs. On a GPU also images per second at 256x256
and 1024x1024, one and sixteen at a time, and the share of the rate of a large matrix product in the same arithmetic.
GMAC are the multiply-adds of one 256x256 picture, counted by PyTorch.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from machine import header
from torch.utils.flop_counter import FlopCounterMode

from gpnp_cli import build
from gpnp_cli.config import Model
from gpnp_cli.denoisers.base import Denoiser
from gpnp_cli.denoisers.drunet import DRUNet, DrunetDenoiser
from gpnp_cli.denoisers.unet import fast_dtype

SIGMA = 0.1


def denoiser(name: str, device: torch.device, dtype: torch.dtype) -> Denoiser:
    if name == "drunet-shape":
        return DrunetDenoiser(DRUNet(), device, dtype)
    return build.build_prior(Model(denoiser=name, tile="off"), 3, device, dtype).denoiser


def noisy(count: int, side: int, device: torch.device) -> torch.Tensor:
    ramp = torch.linspace(0, 1, side).expand(count, 3, side, side)
    return (ramp + SIGMA * torch.randn(ramp.shape, generator=torch.Generator().manual_seed(0))).to(device)


def seconds(call: Callable, *arguments, budget: float = 4.0) -> tuple[float, int]:
    """Median time of a call and how often it was timed, within about `budget` seconds after one first try."""
    times: list[float] = []
    call(*arguments)
    while not times or (sum(times) < budget and len(times) < 40):
        begun = time.perf_counter()
        call(*arguments)
        if arguments[0].is_cuda:
            torch.cuda.synchronize()
        times.append(time.perf_counter() - begun)
    return statistics.median(times), len(times)


def gmac(call: Callable, *arguments) -> float:
    with FlopCounterMode(display=False) as counter:
        call(*arguments)
    return counter.get_total_flops() / 2e9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--denoisers", nargs="+", default=["default", "bm3d", "drunet-shape"])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    device, _ = build.choose_device(args.device)
    precisions = {"fp32": torch.float32, "bf16": torch.bfloat16}
    fast = "bf16" if fast_dtype(device) == torch.bfloat16 else "fp32"

    rows: list[tuple[str, str, str, float, int]] = []
    with torch.inference_mode():
        for name in args.denoisers:
            for precision, dtype in precisions.items():
                if name == "bm3d" and precision != "fp32":  # its arithmetic is its own
                    continue
                prior, v = denoiser(name, device, dtype), noisy(1, 256, device)
                macs = f"{gmac(prior, v, SIGMA):.0f}" if hasattr(prior, "model") else ""
                rows.append((name, precision, macs, *seconds(prior, v, SIGMA)))
                print(*rows[-1], flush=True)
                getattr(prior, "close", lambda: None)()
    slowest = next((row[3] for row in rows if row[0] == "bm3d"), None)
    lines = [
        header(),
        "",
        "| denoiser | arithmetic | GMAC | s per 256x256 colour call | calls timed | faster than BM3D |",
    ]
    lines.append("|---|---|---|---|---|---|")
    for name, precision, macs, time_, count in rows:
        ratio = f"{slowest / time_:.1f}x" if slowest and name != "bm3d" else ""
        chosen = f"{precision} (auto)" if precision == fast and name != "bm3d" else precision
        lines.append(f"| {name} | {chosen} | {macs} | {time_:.3f} | {count} | {ratio} |")
    if device.type == "cuda":
        lines += ["", *on_gpu(args.denoisers, device)]
    text = "\n".join(lines) + "\n"
    print(text)
    if args.out:
        args.out.write_text(text)


def on_gpu(names: list[str], device: torch.device) -> list[str]:
    """Images per second by size and batch, and the share of a large bf16 matrix product's rate."""
    a = torch.randn(8192, 8192, device=device, dtype=torch.bfloat16)
    rate = 8192**3 / seconds(torch.matmul, a, a)[0]  # multiply-adds per second
    lines = [
        f"{torch.cuda.get_device_name(device)}, bf16; a matrix product reaches {2 * rate / 1e12:.0f} TFLOP/s.",
        "",
        "| denoiser | side | batch | images/s | share of the matrix product's rate |",
        "|---|---|---|---|---|",
    ]
    with torch.inference_mode():
        for name in names:
            if name == "bm3d":
                continue
            prior = denoiser(name, device, torch.bfloat16)
            for side in (256, 1024):
                for count in (1, 16):
                    v = noisy(count, side, device)
                    time_ = seconds(prior, v, SIGMA)[0]
                    macs = 1e9 * gmac(prior, v, SIGMA)
                    lines.append(f"| {name} | {side} | {count} | {count / time_:.1f} | {macs / time_ / rate:.1%} |")
    return lines


if __name__ == "__main__":
    main()
