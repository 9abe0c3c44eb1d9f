"""The published results: Fast3D (arXiv 2507.09334), the comparison on five benchmarks, in percent.

The unpruned row is Chat-Scene (arXiv 2312.08168) as that paper reports it. The pruning ratios are those of the
settings, (1 - K/32)(1 - rank/300) for (K, rank) = (16, 90), (6, 60), (2, 15); SAP's is adaptive, given as "~90%" only.
"""

SOURCE = "arXiv 2507.09334"

# name, method, pruning ratio, scores in the order of `fast3d_core.benchmarks.DATASETS`, score ratio
ROWS: tuple[tuple[str, str, float | None, tuple[float, ...], float], ...] = (
    ("Chat-Scene", "vanilla", 0.0, (50.40, 53.21, 35.92, 13.55, 56.83), 100.0),
    ("FastV 35%", "fastv", 35.0, (49.65, 52.64, 35.77, 13.80, 56.74), 99.74),
    ("FastV 65%", "fastv", 65.0, (22.91, 28.26, 29.36, 12.84, 56.01), 74.72),
    ("FastV 90%", "fastv", 89.0625, (3.69, 8.91, 21.92, 10.47, 50.64), 50.29),
    ("GAP 35%", "gap", 35.0, (50.84, 53.55, 35.32, 13.29, 56.86), 99.60),
    ("GAP 65%", "gap", 65.0, (50.89, 53.68, 35.01, 13.44, 56.34), 99.53),
    ("GAP 90%", "gap", 89.0625, (50.02, 51.09, 32.64, 12.79, 55.42), 95.61),
    ("GAP+SAP ~90%", "sap", None, (50.94, 53.06, 34.60, 13.29, 56.22), 98.82),
)
