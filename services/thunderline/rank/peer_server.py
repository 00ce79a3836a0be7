"""mlx-lm's own server on the same BLAS as ours, for `thunderline bench serve`: its flags are mlx_lm.server's."""

from thunderline.rank import blas

BLAS = blas.load()

from mlx_lm import server  # noqa: E402  (the BLAS has to come before mlx)


def main() -> None:
    print(f"blas: {BLAS}", flush=True)
    server.main()


if __name__ == "__main__":
    main()
