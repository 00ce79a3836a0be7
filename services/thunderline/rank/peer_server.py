"""mlx-lm's own server on the same BLAS as ours, for `thunderline bench serve`: its flags are mlx_lm.server's."""

from thunderline.rank import blas

BLAS = blas.load()

from http.server import ThreadingHTTPServer  # noqa: E402

from mlx_lm import server  # noqa: E402  (the BLAS has to come before mlx)

# Five connections that wait to be accepted are its default: of sixteen clients at once some would be refused.
ThreadingHTTPServer.request_queue_size = 128


def main() -> None:
    print(f"blas: {BLAS}", flush=True)
    server.main()


if __name__ == "__main__":
    main()
