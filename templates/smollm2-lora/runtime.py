"""What has to be settled before mlx is imported: import this module first.

mlx compiles kernels with a C++ compiler when it may, and the image has none; its wheel brings the reference BLAS, which is
some fifty times slower than OpenBLAS. Symbols of a library loaded with RTLD_GLOBAL are found before those of libraries
loaded later, so loading Debian's OpenBLAS here is all that it takes for mlx to use it. One kernel family is named, because
OpenBLAS would otherwise choose by CPU, and other kernels round otherwise: any x86-64 with AVX2 and FMA runs this one.
"""

import ctypes
import os

THREADS = int(os.environ.get("PACK_THREADS", "1"))
os.environ["MLX_DISABLE_COMPILE"] = "1"
os.environ["OPENBLAS_CORETYPE"] = "Haswell"
os.environ["OPENBLAS_NUM_THREADS"] = str(THREADS)

OPENBLAS = ["/usr/lib/x86_64-linux-gnu/openblas-pthread/libopenblas.so.0", "libopenblas.so.0"]


def load_openblas():
    for name in OPENBLAS:
        try:
            ctypes.CDLL(name, mode=ctypes.RTLD_GLOBAL)
            return True
        except OSError:
            pass
    return False


HAS_OPENBLAS = load_openblas()
