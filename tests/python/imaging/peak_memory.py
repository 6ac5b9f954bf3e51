"""How much memory it takes to read pictures, in a process of its own."""

import subprocess
import sys
import textwrap

_PROGRAM = textwrap.dedent(
    """
    import io, sys
    from pathlib import Path
    from PIL import Image
    from ghostsr_ext.imaging import read_picture

    # What only a first picture needs is loaded before.
    for mode, kind in (("RGB", "PNG"), ("CMYK", "TIFF"), ("RGB", "WEBP"), ("P", "GIF")):
        small = io.BytesIO()
        Image.new(mode, (9, 9)).save(small, kind)
        read_picture(small)

    def peak():
        # That of this program; the one that getrusage tells is inherited.
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM"))

    for path in sys.argv[1:]:
        Path("/proc/self/clear_refs").write_text("5")
        before = peak()
        rows, columns, _ = read_picture(path).pixels.shape
        print((peak() - before) / (rows * columns))
    """
)


def peak_bytes_per_pixel(*paths):
    """Return for each file the most memory that reading it took, beyond what was there before."""
    done = subprocess.run([sys.executable, "-c", _PROGRAM, *paths], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return dict(zip(paths, map(float, done.stdout.split()), strict=True))
