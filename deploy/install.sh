#!/usr/bin/env bash
# `make install`: .venv with the locked versions, and what the system must provide. Safe to run again.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf 'install: %s\n' "$*" >&2; }

"${PYTHON:-python3}" - <<'PY' || { say "Python 3.11 or newer is needed; set PYTHON=/path/to/python3.11"; exit 1; }
import sys
sys.exit(sys.version_info < (3, 11))
PY

# On Linux MLX's wheel brings a BLAS that is 20 times too slow, and later tests make networks.
if [ "$(uname -s)" = Linux ]; then
  missing=()
  ldconfig -p 2>/dev/null | grep -q 'libopenblas\.so\.0' || missing+=(libopenblas0-pthread)
  command -v ip >/dev/null 2>&1 || [ -x /usr/sbin/ip ] || missing+=(iproute2)
  "${PYTHON:-python3}" -c 'import venv, ensurepip' 2>/dev/null || missing+=(python3-venv)
  if [ ${#missing[@]} -gt 0 ]; then
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
      say "installing ${missing[*]} (Debian packages)"
      log=$(mktemp)
      { apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "${missing[@]}"; } >"$log" 2>&1 \
        || { cat "$log" >&2; say "apt-get failed, see above"; exit 1; }
      rm -f "$log"
    else
      say "missing from the system: ${missing[*]}. Without OpenBLAS a token takes 20 times as long. On Debian or Ubuntu:"
      say "  sudo apt-get install ${missing[*]}"
      command -v apt-get >/dev/null 2>&1 || say "  (elsewhere: the package that holds libopenblas.so.0)"
    fi
  fi
fi

# One that was left unfinished has no pip.
.venv/bin/python -m pip --version >/dev/null 2>&1 || { say "making .venv"; "${PYTHON:-python3}" -m venv --clear .venv; }
say "installing the locked versions (about a minute the first time)"
log=$(mktemp)
{ .venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock \
    && .venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .; } >"$log" 2>&1 \
  || { cat "$log" >&2; say "pip failed, see above"; exit 1; }
rm -f "$log"
touch .venv/installed
say "done"
