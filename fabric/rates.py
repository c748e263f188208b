"""Signalling rates by the names that InfiniBand's tools print. Pure."""

# Gbit/s of one lane. FDR10 carries 40 Gbit/s over four lanes, encoded as EDR is.
LANE_GBPS = {
    "SDR": 2.5, "DDR": 5.0, "QDR": 10.0, "FDR10": 10.3125, "FDR": 14.0625, "EDR": 25.78125, "HDR": 53.125,
    "NDR": 106.25, "XDR": 212.5,
}  # fmt: skip


def lane_rate(name: str) -> float:
    """Gbit/s of a lane by its generation's name, or by a number ("25.78125 Gbps"); 0 for what is neither.

    >>> lane_rate("NDR"), lane_rate("25.78125 Gbps"), lane_rate("???")
    (106.25, 25.78125, 0.0)
    """
    known = LANE_GBPS.get(name.strip().upper())
    if known is not None:
        return known
    try:
        value = float(name.split()[0])
    except (ValueError, IndexError):
        return 0.0
    return value if 0 < value < 10_000 else 0.0
